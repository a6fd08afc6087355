"""The vocabulary: immutable values shared by every room. Standard library only, no I/O."""
