"""One way of watching: live in a terminal, a line per change elsewhere, JSON for programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import click

from tao_daemon.cli.client import ControlClient
from tao_daemon.cli.durations import clock
from tao_daemon.cli.looks import Document, looks, outage
from tao_daemon.cli.output import clean_line, echo_json
from tao_daemon.cli.tables import View, make_console, marks_for


@dataclass(frozen=True, slots=True)
class Watched:
    """How one kind of document is watched."""

    path: str
    pick: Callable[[Document], Document]
    """What of the document is printed as JSON."""
    draw: Callable[[Document, float], View]
    """The view at a Unix second."""
    line: Callable[[Document], str]
    """The same in a line, for output that is no terminal; printed when it changes."""
    ended: Callable[[Document], bool] = lambda found: False


def watch(client: ControlClient, watched: Watched, *, as_json: bool) -> None:
    """Show it live until it has ended, or until Ctrl-C."""
    try:
        if as_json:
            _watch_json(client, watched)
        elif make_console().is_terminal:
            _watch_live(client, watched)
        else:
            _watch_lines(client, watched)
    except KeyboardInterrupt:
        return


def _watch_live(client: ControlClient, watched: Watched) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    console = make_console()
    marks = marks_for(console)
    last: Document = {}
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for look in looks(client, watched.path):
            last = look.found or last
            drawn = watched.draw(last, time.time())(marks)
            if look.found is None:
                drawn = Group(Text(f"{outage(look)}; this was its state then:", style="bold red"), drawn)
            live.update(drawn, refresh=True)
            if look.found is not None and watched.ended(last):
                return


def _watch_lines(client: ControlClient, watched: Watched) -> None:
    before = ""
    for look in looks(client, watched.path):
        line = watched.line(look.found) if look.found is not None else "the daemon does not answer"
        if line != before:
            click.echo(f"{clock(time.time())}  {clean_line(line)}")
        before = line
        if look.found is not None and watched.ended(look.found):
            return


def _watch_json(client: ControlClient, watched: Watched) -> None:
    """A document per change; one whole JSON value after another."""
    before: Document | None = None
    for look in looks(client, watched.path):
        if look.found is None:
            continue
        if (picked := watched.pick(look.found)) != before:
            echo_json(picked)
        before = picked
        if watched.ended(look.found):
            return
