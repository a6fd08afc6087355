"""`tao-daemon rollout`: the verbs of a delivery. Undo also works while the daemon is down."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tao_daemon.cli.client import ControlClient, DaemonUnreachable
from tao_daemon.cli.exits import REFUSED
from tao_daemon.cli.options import actor, config_option, json_option, read_config, reason_option
from tao_daemon.config import Config

_WATCH_SECONDS = 1.0


@click.group()
def command() -> None:
    """Follow and steer rollouts; every verb is recorded with who and why.

    \b
    Examples:
      tao-daemon rollout status --watch
      tao-daemon rollout approve --reason "looks good in the shadow"
      tao-daemon rollout promote               # skip what is left of this step
      tao-daemon rollout undo --reason "answers got longer"
    """


@command.command()
@config_option
@json_option
@click.option("--watch", is_flag=True, help="Refresh until the rollout has ended; Ctrl-C stops watching.")
def status(config_path: Path, as_json: bool, watch: bool) -> None:
    """What serves, how the rollout stands, on which evidence, and why it does not move."""
    client = ControlClient(read_config(config_path))
    while True:
        found = client.get("/v1/status")
        if as_json:
            click.echo(json.dumps({"incumbent": found["incumbent"], "rollout": found["rollout"]}, indent=2))
        else:
            if watch:
                click.clear()
            _show(found)
        if not watch or not _is_open(found["rollout"]):
            return
        time.sleep(_WATCH_SECONDS)


@command.command()
@config_option
@json_option
def history(config_path: Path, as_json: bool) -> None:
    """Every rollout with its steps, the latest first."""
    found = ControlClient(read_config(config_path)).get("/v1/rollouts")["rollouts"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for rollout in found:
        click.echo(f"{rollout['adapter']}  round {rollout['round']}  {rollout['outcome']}")
        for step in rollout["steps"]:
            at = datetime.fromtimestamp(step["at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
            click.echo(f"  {at}  {step['phase']:<11} {step['fraction']:>4.0%}  {step['note']}")


def _verb(name: str, summary: str) -> None:
    @command.command(name, help=summary)
    @config_option
    @reason_option
    def act(config_path: Path, reason: str) -> None:
        _report(_ask(read_config(config_path), name, reason))


_verb("approve", "Let the rollout go past the shadow (rollout.mode = approve).")
_verb("abort", "End the open rollout; the incumbent answers everything.")
_verb("pause", "Hold the open rollout where it is; regressions still abort it.")
_verb("resume", "Let a paused rollout move again.")


@command.command()
@config_option
@reason_option
@click.option("--full", is_flag=True, help="Skip the rest of the whole rollout: serve everything, settled.")
def promote(config_path: Path, reason: str, full: bool) -> None:
    """Skip what is left of the present phase or canary step.

    It is refused when the rollout moved between looking and promoting: two people who promote at once promote one step.
    """
    config = read_config(config_path)
    seen = ControlClient(config).get("/v1/status")["incumbent"]["generation"]
    _report(_ask(config, "promote", reason, full=full, expected_generation=seen))


@command.command()
@config_option
@reason_option
@click.option("--to", metavar="ADAPTER", help='An adapter that settled before, or "base"; default: one step back.')
def undo(config_path: Path, reason: str, to: str | None) -> None:
    """Serve the previous adapter again, or the base model, at once. An open canary is taken back first.

    What is still loaded is flipped to at once; another adapter is loaded and verified first. Works with the daemon
    down: the next routes generation is journaled and written to routes.json, gateways on this machine read it, and
    the daemon carries on from there at its next start.

    \b
    Examples:
      tao-daemon rollout undo --reason "answers got longer"
      tao-daemon rollout undo --to base --reason "incident 42"
    """
    config = read_config(config_path)
    try:
        _report(_ask(config, "undo", reason, to=to))
    except DaemonUnreachable:
        click.echo("the daemon is down: undoing in its journal", err=True)
        _report(_undo_offline(config, reason or "no reason given", to))


def _ask(config: Config, verb: str, reason: str, **more: Any) -> dict[str, Any]:
    body = {"actor": actor(), "reason": reason, **more}
    answer: dict[str, Any] = ControlClient(config).post(f"/v1/rollout/{verb}", body)
    return answer


def _undo_offline(config: Config, reason: str, to: str | None) -> dict[str, Any]:
    from tao_daemon.app.paths import journal_path, routes_path
    from tao_daemon.app.settings import policy_of
    from tao_daemon.daemon.instance import sole_owner
    from tao_daemon.daemon.routes_board import write_routes
    from tao_daemon.daemon.supervisor import apply_event, last_state
    from tao_daemon.domain.events import UndoRequested
    from tao_daemon.registry.journal import Journal

    with sole_owner(config.daemon.data_dir):
        journal = Journal(journal_path(config))
        try:
            event = UndoRequested(actor(), reason, to)
            transition = apply_event(journal, last_state(journal), event, policy_of(config), time.time())
            write_routes(routes_path(config), transition.state.routes)
        finally:
            journal.close()
    return {"note": transition.note, "refused": transition.refused}


def _report(answer: dict[str, Any]) -> None:
    """Print what the daemon did; what it refused is exit code 4."""
    click.echo(answer["note"])
    if answer["refused"]:
        raise SystemExit(REFUSED)


def _is_open(rollout: dict[str, Any] | None) -> bool:
    return rollout is not None and rollout["phase"] in ("staged", "shadow", "canary", "baking")


def _show(found: dict[str, Any]) -> None:
    incumbent, rollout = found["incumbent"], found["rollout"]
    click.echo(f"serving   {incumbent['adapter'] or 'base model'} (generation {incumbent['generation']})")
    if found["returning_to"]:
        click.echo(f"undo      to {found['returning_to']}: being loaded and verified")
    if rollout is None:
        click.echo("rollout   none yet")
        return
    share = f", {rollout['traffic_fraction']:.0%} of the conversations" if rollout["phase"] == "canary" else ""
    click.echo(f"rollout   {rollout['adapter']} {rollout['phase']}{share}: {rollout['reason']}")
    if not _is_open(rollout):
        return
    click.echo(f"now       {rollout['hold']}")
    click.echo(f"shadow    {rollout['shadow']}")
    for name, value in rollout["evidence"].items():
        click.echo(f"  {name:<32} {value:.6g}")
