"""Freed memory goes back to the kernel, whatever is kept beside it."""

from __future__ import annotations

import subprocess
import sys

KEPT_BETWEEN = """
import sys
from tao_daemon.learning.heap import map_large_blocks

if sys.argv[1] == "mapped":
    assert map_large_blocks()

def held_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 >> 20

bytearray(30 << 20)  # from now on glibc takes blocks as large as this from its heap
before = held_mib()
passing, kept = [], []
for _ in range(32):
    passing.append(bytearray(8 << 20))
    kept.append(bytearray(1 << 14))
passing.clear()
print(held_mib() - before)
"""


def held_after(manner: str) -> int:
    """MiB that a process still holds once it has freed 256 MiB and kept 0.5 MiB between them."""
    done = subprocess.run(
        [sys.executable, "-c", KEPT_BETWEEN, manner], capture_output=True, text=True, timeout=60, check=True
    )
    return int(done.stdout)


def test_what_is_freed_is_given_back_although_something_lies_between() -> None:
    assert held_after("as it is") > 128
    assert held_after("mapped") < 32
