"""Two directories change places at once (Linux renameat2), so that nobody ever finds neither."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from tao_daemon.clients.storage import fsync_directory

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EXDEV)


def exchange(left: Path, right: Path) -> None:
    """Both must exist on one file system. Where it cannot exchange, three renames do. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(left), _AT_FDCWD, os.fsencode(right), _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        if number not in _UNSUPPORTED:
            raise OSError(number, os.strerror(number), str(left), None, str(right))
        between = left.with_name(f"{left.name}.exchange")
        right.rename(between)
        left.rename(right)
        between.rename(left)
    fsync_directory(left.parent)
    fsync_directory(right.parent)
