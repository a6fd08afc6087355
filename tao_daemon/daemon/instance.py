"""One owner per data directory, held by an advisory file lock that the kernel drops with the process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tao_daemon.domain.errors import InstanceError


@contextmanager
def sole_owner(data_dir: Path) -> Iterator[None]:
    """Hold `data_dir` for this process. Raises InstanceError naming the process that has it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / "daemon.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise InstanceError(
                f"{data_dir} is in use by process {owner}; stop that daemon, or give this one its own data_dir"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
