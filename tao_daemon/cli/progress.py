"""A bar on stderr while something long runs; nothing where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, int, int], None]
"""What is done now, how much of it, out of how much (0: unknown)."""


@contextmanager
def progress_bar() -> Iterator[Report]:
    """Yields what is to be called with every step."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True, markup=False), transient=True) as shown:
        task = shown.add_task("starting", total=None)
        yield lambda what, done, total: shown.update(task, description=what, completed=done, total=total or None)
