"""`tao-daemon rollout`: the verbs of a delivery. Undo also works while the daemon is down."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from tao_daemon.cli.client import ControlClient, DaemonUnreachable
from tao_daemon.cli.exits import REFUSED
from tao_daemon.cli.options import actor, config_option, json_option, read_config, reason_option
from tao_daemon.config import Config


@click.group()
def command() -> None:
    """Approve, abort and undo rollouts; each is recorded with who and why."""


@command.command()
@config_option
@json_option
def status(config_path: Path, as_json: bool) -> None:
    """What serves and how the latest rollout stands."""
    found = ControlClient(read_config(config_path)).get("/v1/status")
    if as_json:
        click.echo(json.dumps({"incumbent": found["incumbent"], "rollout": found["rollout"]}, indent=2))
        return
    incumbent, rollout = found["incumbent"], found["rollout"]
    click.echo(f"serving   {incumbent['adapter'] or 'base model'} (generation {incumbent['generation']})")
    if rollout:
        click.echo(f"rollout   {rollout['adapter']} {rollout['phase']}: {rollout['reason']}")


def _verb(name: str, summary: str) -> None:
    @command.command(name, help=summary)
    @config_option
    @reason_option
    def act(config_path: Path, reason: str) -> None:
        answer = ControlClient(read_config(config_path)).post(
            f"/v1/rollout/{name}", {"actor": actor(), "reason": reason}
        )
        _report(answer["note"])


_verb("approve", "Let the staged adapter serve.")
_verb("abort", "End the open rollout before its adapter serves.")


@command.command()
@config_option
@reason_option
def undo(config_path: Path, reason: str) -> None:
    """Serve the previous adapter again, or the base model, at once.

    Works with the daemon down: the next routes generation is journaled and written to routes.json, gateways on
    this machine read it, and the daemon carries on from there at its next start.

    \b
    Example:
      tao-daemon rollout undo --reason "answers got longer"
    """
    config = read_config(config_path)
    try:
        answer = ControlClient(config).post("/v1/rollout/undo", {"actor": actor(), "reason": reason})
        _report(answer["note"])
    except DaemonUnreachable:
        click.echo("the daemon is down: undoing in its journal", err=True)
        _report(_undo_offline(config, reason or "no reason given"))


def _undo_offline(config: Config, reason: str) -> str:
    from tao_daemon.app import journal_path, policy_of, routes_path
    from tao_daemon.daemon.instance import sole_owner
    from tao_daemon.daemon.routes_board import write_routes
    from tao_daemon.daemon.supervisor import apply_event, last_state
    from tao_daemon.domain.events import UndoRequested
    from tao_daemon.registry.journal import Journal

    with sole_owner(config.daemon.data_dir):
        journal = Journal(journal_path(config))
        try:
            event = UndoRequested(actor(), reason)
            transition = apply_event(journal, last_state(journal), event, policy_of(config), time.time())
            write_routes(routes_path(config), transition.state.routes)
        finally:
            journal.close()
    return transition.note


def _report(note: str) -> None:
    """Print the machine's note; a refusal ("nothing to …") is exit code 4."""
    click.echo(note)
    if "nothing to" in note:
        raise SystemExit(REFUSED)
