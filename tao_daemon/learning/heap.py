"""How this process's C library holds large blocks of memory.

glibc maps a large block by itself until the first such block is freed; from then on it takes blocks of up to 32 MiB
from one heap, which shrinks only at its end. Where few tensors outlive many (the inputs of layers whose activations are
recomputed), they come to lie between the freed ones and the heap grows on: a process may hold several times what lives.
"""

from __future__ import annotations

import ctypes

LARGE_BYTES = 1 << 20
_M_MMAP_THRESHOLD = -3  # malloc.h; setting it also ends the growth of the threshold, mallopt(3)


def map_large_blocks() -> bool:
    """Blocks of 1 MiB and more are mapped one by one and go back to the kernel when freed, from now on.

    Costs the kernel's zeroing of every new one. False where the C library has no such setting.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES))
    except (AttributeError, OSError):
        return False
