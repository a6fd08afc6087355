"""What is done to a data directory whose daemon is stopped, each operation under the lock of its one owner."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""What is done now, how much of it, out of how much (0: unknown)."""
