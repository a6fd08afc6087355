"""What every column shares. Nothing heavy: the trainers in processes of their own read it too."""

from __future__ import annotations

RANK, ALPHA = 16, 32
MIN_SPREAD = 0.05
"""A group whose rewards differ by less teaches nothing."""
