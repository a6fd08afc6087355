"""A bar on stderr while something long runs; nothing where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tao_daemon.app.operations import Progress


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yields what is to be called with every step."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn())
    console = Console(stderr=True, markup=False)
    with rich.Progress(*columns, rich.TimeElapsedColumn(), console=console, transient=True) as shown:
        task = shown.add_task("starting", total=None)
        yield lambda what, done, total: shown.update(task, description=what, completed=done, total=total or None)
