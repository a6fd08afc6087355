"""How commands look: one kind of table, one kind of bar, one set of marks.

In a terminal with rich, colours (unless NO_COLOR) and Unicode marks; anywhere else plain text, as wide as it gets,
without escapes, boxes or anything but ASCII of our own, so that grep, awk and logs can take it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tao_daemon.cli.output import ASCII, UNICODE, Marks, clean

_PLAIN_WIDTH = 4000
"""Of output that is no terminal: nothing is wrapped or cut."""

View = Callable[[Marks], RenderableType]
"""Draws something with the marks that the output can show."""


def make_console() -> Console:
    """For stdout as it is now."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    return console


def marks_for(console: Console) -> Marks:
    return UNICODE if console.is_terminal and console.encoding.startswith("utf") else ASCII


def show(view: View) -> None:
    """Print a view once."""
    console = make_console()
    drawn = view(marks_for(console))
    if console.is_terminal:
        console.print(drawn)
    else:
        click.echo(plain(drawn, console))


def plain(drawn: RenderableType, console: Console | None = None) -> str:
    """A view as lines without escapes or trailing blanks."""
    console = console or Console(width=_PLAIN_WIDTH, highlight=False, markup=False, force_terminal=False, no_color=True)
    with console.capture() as captured:
        console.print(drawn)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def table(columns: Sequence[str], rows: Iterable[Sequence[RenderableType]], numbers: Sequence[str] = ()) -> Table:
    """Rows under a heading; the columns named in `numbers` are aligned to the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for name in columns:
        wide = name in ("why", "note", "reason")
        made.add_column(name.upper(), justify="right" if name in numbers else "left", overflow="fold", no_wrap=not wide)
    for row in rows:
        made.add_row(*(cell if not isinstance(cell, str) else Text(clean(cell)) for cell in row))
    return made


def facts(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    """Label and value, one pair a line; an empty label continues the one before."""
    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for label, value in rows:
        made.add_row(label, Text(clean(value)) if isinstance(value, str) else value)
    return made
