"""`tao-daemon round`: list, show, start and cancel rounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tao_daemon.cli.client import ControlClient
from tao_daemon.cli.options import actor, config_option, json_option, read_config, reason_option


@click.group()
def command() -> None:
    """List, show, start and cancel rounds."""


@command.command("list")
@config_option
@json_option
def list_rounds(config_path: Path, as_json: bool) -> None:
    """Every round with its outcome and held-out gain, oldest first."""
    rounds = ControlClient(read_config(config_path)).get("/v1/rounds")["rounds"]
    if as_json:
        click.echo(json.dumps(rounds, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("round", "outcome", "gain", "seconds", "candidate", "why", box=None)
    for report in rounds:
        table.add_row(*_row(report))
    Console().print(table)


@command.command()
@config_option
@click.argument("number", type=int)
def show(config_path: Path, number: int) -> None:
    """The whole report of round NUMBER, as JSON."""
    click.echo(json.dumps(ControlClient(read_config(config_path)).get(f"/v1/rounds/{number}"), indent=2))


@command.command()
@config_option
@reason_option
def run(config_path: Path, reason: str) -> None:
    """Start a round now, or as soon as the running one ends."""
    _post(config_path, "/v1/rounds", reason)


@command.command()
@config_option
@reason_option
def cancel(config_path: Path, reason: str) -> None:
    """Cancel the running round; its prompts return to the pool."""
    _post(config_path, "/v1/rounds/cancel", reason)


def _post(config_path: Path, path: str, reason: str) -> None:
    answer = ControlClient(read_config(config_path)).post(path, {"actor": actor(), "reason": reason})
    click.echo(answer["note"])


def _row(report: dict[str, Any]) -> tuple[str, ...]:
    numbers = report.get("verdict", {}).get("numbers", {})
    gain = f"{numbers['difference']:+.3f}" if "difference" in numbers else "-"
    seconds = sum(phase.get("seconds", 0.0) for phase in report["phases"].values())
    why = report.get("outcome_reason", "")
    return (
        str(report["round"]),
        report.get("outcome", "running"),
        gain,
        f"{seconds:.0f}",
        report.get("candidate") or "-",
        why,
    )
