"""Typed HTTP to servers that are not ours, and files written atomically."""
