"""`tao-daemon status`: one look. With --watch it stays and moves."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from tao_daemon.cli.client import ControlClient
from tao_daemon.cli.options import config_option, json_option, read_config

_REFRESH_SECONDS = 1.0


@click.command()
@config_option
@json_option
@click.option("--watch", is_flag=True, help="Refresh every second until Ctrl-C.")
def command(config_path: Path, as_json: bool, watch: bool) -> None:
    """What serves, what runs, what waits.

    \b
    Examples:
      tao-daemon status
      tao-daemon status --watch
      tao-daemon status --json | jq .incumbent.adapter
    """
    client = ControlClient(read_config(config_path))
    if as_json:
        click.echo(json.dumps(client.get("/v1/status"), indent=2))
    elif watch:
        _watch(client)
    else:
        from rich.console import Console

        Console().print(render(client.get("/v1/status")))


def _watch(client: ControlClient) -> None:
    from rich.live import Live

    with Live(render(client.get("/v1/status")), auto_refresh=False) as live:
        while True:
            time.sleep(_REFRESH_SECONDS)
            live.update(render(client.get("/v1/status")), refresh=True)


def render(status: dict[str, Any]) -> Any:
    """A status as a rich table."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    incumbent = status["incumbent"]
    table.add_row("serving", incumbent["adapter"] or "base model")
    table.add_row("undo goes to", incumbent["previous"] or ("base model" if incumbent["adapter"] else "-"))
    table.add_row("round", _round(status["round"]) if status["round"] else f"idle: {status['next_round']['trigger']}")
    if status["last_round"]:
        last = status["last_round"]
        table.add_row("last round", f"{last['id']} {last['outcome']}: {last['reason']}")
    if status["rollout"]:
        rollout = status["rollout"]
        share = f" {rollout['traffic_fraction']:.0%}" if rollout["phase"] == "canary" else ""
        why = rollout["hold"] or rollout["reason"]
        table.add_row("rollout", f"{rollout['adapter']} {rollout['phase']}{share}: {why}")
    if status["returning_to"]:
        table.add_row("undo", f"to {status['returning_to']}: being loaded and verified")
    if status["fleet"]["unready"]:
        table.add_row("not ready", ", ".join(status["fleet"]["unready"]))
    table.add_row("gateways", str(status["fleet"]["gateways"]))
    table.add_row("buffer", _buffer(status["buffer"]))
    table.add_row("intake", status["intake"])
    return table


def _round(running: dict[str, Any]) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    left = running["seconds_left"]
    line = Table.grid(padding=(0, 1))
    counts = f"{running['done']}/{running['total']}" if running["total"] else ""
    line.add_row(
        f"{running['id']} {running['phase']}",
        ProgressBar(total=1.0, completed=running["progress"], width=30),
        f"{running['progress']:.0%} {counts}",
        f"{left:.0f} s left" if left is not None else "",
    )
    return line


def _buffer(buffer: dict[str, Any] | None) -> str:
    if buffer is None:
        return "does not answer"
    return (
        f"{buffer['train']} train ({buffer['train_available']} fresh), {buffer['held_out']} held-out "
        f"({buffer['held_out_available']} fresh), {buffer['excluded']} excluded, {buffer['clusters']} clusters"
    )
