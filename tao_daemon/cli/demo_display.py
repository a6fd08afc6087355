"""How the demo looks: a live panel in a terminal, plain lines elsewhere. Draws views, decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tao_daemon.embedded.demo_report import report_lines
from tao_daemon.embedded.demo_view import PHASES, SETUP, View, changes, rewards_line, rollout_line, traffic_line

_BAR_WIDTH = 32
_SHORT = 80


class Display(Protocol):
    def show(self, view: View) -> None: ...

    def present(self, report: Mapping[str, Any], *, keeps_running: bool) -> None: ...


@contextmanager
def display() -> Iterator[Display]:
    """The display that fits stdout."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        yield PlainDisplay()
        return
    with Live(console=console, auto_refresh=False) as live:
        yield LiveDisplay(live)


class PlainDisplay:
    """One line per change, with the seconds since the start: for logs and pipes."""

    def __init__(self) -> None:
        self._before = View()

    def show(self, view: View) -> None:
        for line in changes(self._before, view):
            click.echo(f"{view.elapsed:6.0f} s  {line}")
        self._before = view

    def present(self, report: Mapping[str, Any], *, keeps_running: bool) -> None:
        click.echo("\n" + "\n".join(report_lines(report, keeps_running=keeps_running)) + "\n")


class LiveDisplay:
    """The state of now in place; what deserves to stay is printed above it."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._rounds: set[int] = set()

    def show(self, view: View) -> None:
        last = view.last_round
        if last and last["id"] not in self._rounds:
            self._rounds.add(last["id"])
            self._live.console.print(f"round {last['id']} {last['outcome']}: {last['reason']}", style="bold")
        self._live.update(render(view), refresh=True)

    def present(self, report: Mapping[str, Any], *, keeps_running: bool) -> None:
        text = "\n".join(report_lines(report, keeps_running=keeps_running))
        # Without rich's wrapping: the curl line must be copied as it is.
        self._live.console.print(Text(text + "\n"), soft_wrap=True)


def render(view: View) -> RenderableType:
    """A view as a panel."""
    parts: list[RenderableType] = [_setup(view)]
    if view.status:
        parts += [Text(), _facts(view)]
        parts += [Text(), _phases(view)]
    minutes, seconds = divmod(int(view.elapsed), 60)
    return Panel(Group(*parts), title="tao-daemon demo", subtitle=f"{minutes}:{seconds:02d} · Ctrl-C ends it all")


def _setup(view: View) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    for part, title in SETUP.items():
        if part in view.seconds:
            table.add_row("✓", title, f"{view.seconds[part]:.0f} s")
        elif part == view.doing:
            table.add_row("…", Text(title, style="bold"), view.note)
        else:
            table.add_row(" ", Text(title, style="dim"), "")
    return table


def _facts(view: View) -> RenderableType:
    assert view.status is not None
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("traffic", traffic_line(view).removeprefix("traffic: "))
    errors = f"{view.live_errors} errors"
    table.add_row("live questions", f"{view.live_requests} through the gateway, {errors}")
    table.add_row("serving", view.status["incumbent"]["adapter"] or "the base model")
    if view.last_answer:
        last = view.last_answer
        table.add_row("last question", Text(_short(last.question)))
        table.add_row("its answer", Text(f"{_short(last.answer)}  ({last.version}, {last.seconds:.1f} s)"))
    latest = view.reports[max(view.reports)] if view.reports else None
    if rewards := rewards_line(latest):
        table.add_row("rewards", rewards)
    return table


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else line[: _SHORT - 1] + "…"


def _phases(view: View) -> RenderableType:
    assert view.status is not None
    running = view.round
    if running is None:
        if rollout := view.open_rollout:
            return Text(f"rollout of {rollout['adapter']}, {rollout_line(rollout)}", style="bold")
        return Text(f"next round: {view.status['next_round']['trigger']}")
    table = Table.grid(padding=(0, 1))
    current = PHASES.index(running["phase"])
    for place, phase in enumerate(PHASES):
        done = 1.0 if place < current else running["progress"] if place == current else 0.0
        table.add_row(
            f"round {running['id']}" if place == 0 else "",
            Text(phase, style="bold" if place == current else "dim" if place > current else ""),
            ProgressBar(total=1.0, completed=done, width=_BAR_WIDTH),
            _counts(view, running, phase) if place <= current else "",
        )
    return table


def _counts(view: View, running: Mapping[str, Any], phase: str) -> str:
    if phase != running["phase"]:
        seconds = view.reports.get(running["id"], {}).get("phases", {}).get(phase, {}).get("seconds")
        return f"{seconds:.0f} s" if seconds is not None else ""
    counts = f"{running['done']}/{running['total']}" if running["total"] else ""
    left = f", about {running['seconds_left']:.0f} s left" if running["seconds_left"] else ""
    return counts + left
