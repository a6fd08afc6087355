"""`tao-daemon status`: one look. With --watch it stays and moves."""

from __future__ import annotations

import time

import click

from tao_daemon.cli.client import ControlClient
from tao_daemon.cli.options import daemon_options, json_option, watch_option
from tao_daemon.cli.output import echo_json

_PATH = "/v1/status"


@click.command()
@watch_option("Stay, and show what changes; goes on when the daemon restarts. Ctrl-C ends it.")
@json_option
@daemon_options
def command(client: ControlClient, watch: bool, as_json: bool) -> None:
    """What needs you, what serves, what runs and how long it takes, what waits and why.

    \b
    Examples:
      tao-daemon status
      tao-daemon status --watch
      tao-daemon status --json | jq .incumbent.adapter
      tao-daemon status --url https://tao.example --token env:TAO_READER
    """
    if as_json and not watch:
        echo_json(client.get(_PATH))
        return
    from tao_daemon.cli import status_view
    from tao_daemon.cli.tables import show
    from tao_daemon.cli.watch import Watched
    from tao_daemon.cli.watch import watch as stay

    if watch:
        stay(client, Watched(_PATH, dict, status_view.render, status_view.line), as_json=as_json)
    else:
        show(status_view.render(client.get(_PATH), time.time()))
