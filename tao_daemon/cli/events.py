"""`tao-daemon events`: what the daemon decides and does, a line each, as it happens."""

from __future__ import annotations

import time
from typing import Any

import click

from tao_daemon.cli.client import ControlClient, DaemonUnreachable
from tao_daemon.cli.durations import clock, format_duration
from tao_daemon.cli.options import daemon_options, json_option
from tao_daemon.cli.output import clean_line, echo_json_line
from tao_daemon.cli.stream import Happening, follow

_PARTS = 10
"""Progress is told in tenths."""


@click.command()
@click.option("--after", type=click.IntRange(min=0), metavar="SEQ", help="Begin after this entry of the audit log.")
@json_option
@daemon_options
def command(client: ControlClient, after: int | None, as_json: bool) -> None:
    """Follow what the daemon decides and does, like tail -f; goes on where it was when the daemon restarts.

    Without --after it begins now. --json prints one object per line. Ctrl-C ends it.

    \b
    Examples:
      tao-daemon events
      tao-daemon events --after 0                    # everything, from the first decision on
      tao-daemon events --json | jq -r 'select(.event == "transition") | .note'
    """
    lines = Lines()
    try:
        for item in follow(client, after):
            if isinstance(item, DaemonUnreachable):
                if lines.lost():
                    click.echo("the daemon does not answer; waiting for it", err=True)
            elif as_json:
                echo_json_line({"event": item.kind, **item.data})
            elif line := lines.of(item):
                click.echo(clean_line(line))
    except KeyboardInterrupt:
        return


class Lines:
    """Events as lines. Progress is told when it has moved by a tenth, so that a log stays readable."""

    def __init__(self) -> None:
        self._told: tuple[Any, ...] = ()
        self._lost = False

    def lost(self) -> bool:
        """Whether this is news."""
        news, self._lost = not self._lost, True
        return news

    def of(self, item: Happening) -> str | None:
        self._lost = False
        data = item.data
        if item.kind == "transition":
            return f"{clock(data['at'])}  {data['seq']:>5}  {data['actor']:<10}  {data['note'] or data['type']}"
        if item.kind != "progress":
            return None
        place = (data["round"], data["phase"], int(round(data["fraction"] * _PARTS, 6)))
        if place == self._told:
            return None
        self._told = place
        left = f", {format_duration(data['seconds_left'])} left" if data["seconds_left"] is not None else ""
        done = f"{data['done']}/{data['total']}"
        what = f"round {data['round']} {data['phase']} {data['fraction']:.0%} {done}{left}"
        return f"{clock(time.time())}  {'':>5}  {'':<10}  {what}"
