"""`tao-daemon rollout`: the verbs of a delivery. Undo also works while the daemon is down."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from tao_daemon.cli.client import AnswerLate, AnswerLost, ControlClient, DaemonUnreachable
from tao_daemon.cli.completion import undo_targets
from tao_daemon.cli.headline import is_open
from tao_daemon.cli.looks import Document
from tao_daemon.cli.options import actor, daemon_options, json_option, reason_option, watch_option, yes_option
from tao_daemon.cli.output import tell
from tao_daemon.cli.past import past
from tao_daemon.cli.verbs import act, confirm, new_key, report
from tao_daemon.domain.events import NO_REASON, UndoRequested

_STATUS = "/v1/status"
_UNDO_PATIENCE_SECONDS = 2.0
"""An undo does not wait for a daemon that went away: it is done in its journal."""
_SHOWN = ("incumbent", "mode", "returning_to", "rollout")


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
@watch_option("Stay until the rollout has ended; goes on when the daemon restarts. Ctrl-C ends it.")
@json_option
@daemon_options
def status(client: ControlClient, watch: bool, as_json: bool) -> None:
    """How the rollout stands, and what holds it.

    Its steps, the evidence per arm, what holds it and which command moves it. A test whose e-value reaches the last
    column ends the rollout by itself.

    \b
    Examples:
      tao-daemon rollout status
      tao-daemon rollout status --watch
      tao-daemon rollout status --json | jq .rollout.evidence
    """
    if not watch:
        found = client.get(_STATUS)
        tell(_picked(found), as_json, lambda picked: _show_status(found))
        return
    from tao_daemon.cli import rollout_view
    from tao_daemon.cli.watch import Watched
    from tao_daemon.cli.watch import watch as stay

    stay(client, Watched(_STATUS, _picked, rollout_view.render, rollout_view.line, ended=_over), as_json=as_json)


@command.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Rollouts, at most.")
@json_option
@daemon_options
def history(client: ControlClient, limit: int, as_json: bool) -> None:
    """Every rollout with its steps, the latest first.

    With who or what moved it, and why. Works with the daemon down.

    \b
    Examples:
      tao-daemon rollout history
      tao-daemon rollout history --json | jq '.[0].outcome'
    """
    found = past(client, "/v1/rollouts", lambda disk: disk.rollouts(limit), limit=limit)["rollouts"]
    tell(found, as_json, _show_history)


def _verb(name: str, summary: str, example: str) -> None:
    @command.command(name, help=f'{summary}\n\n\b\nExample:\n  tao-daemon rollout {name} --reason "{example}"')
    @reason_option
    @json_option
    @daemon_options
    def verb(client: ControlClient, reason: str, as_json: bool) -> None:
        report(act(client, f"/v1/rollout/{name}", reason), as_json=as_json)


_verb("approve", "Let the rollout go past the shadow (rollout.mode = approve).", "48 pairs, none worse")
_verb("abort", "End the open rollout; the incumbent answers everything.", "wrong prompts in the training data")
_verb("pause", "Hold the open rollout where it is; regressions still abort it.", "release freeze")
_verb("resume", "Let a paused rollout move again.", "the freeze is over")


@command.command()
@click.option("--full", is_flag=True, help="Skip the rest of the whole rollout: serve everything, settled.")
@yes_option
@reason_option
@json_option
@daemon_options
def promote(client: ControlClient, full: bool, yes: bool, reason: str, as_json: bool) -> None:
    """Skip what is left of the present phase or canary step.

    It is refused when the rollout moved between looking and promoting: two people who promote at once promote one
    step. --full asks for confirmation in a terminal.

    \b
    Examples:
      tao-daemon rollout promote --reason "the step has seen enough"
      tao-daemon rollout promote --full --yes --reason "incident 42 needs it now"
    """
    seen = client.get(_STATUS)
    if full and seen["rollout"]:
        adapter = seen["rollout"]["adapter"]
        confirm(f"Let {adapter} answer everything, without the rest of shadow, canary and baking?", yes=yes)
    generation = seen["incumbent"]["generation"]
    report(act(client, "/v1/rollout/promote", reason, full=full, expected_generation=generation), as_json=as_json)


@command.command()
@click.option(
    "--to",
    metavar="ADAPTER",
    shell_complete=undo_targets,
    help='An adapter that settled before, or "base"; default: one step back.',
)
@yes_option
@reason_option
@json_option
@daemon_options
def undo(client: ControlClient, to: str | None, yes: bool, reason: str, as_json: bool) -> None:
    """Serve the previous adapter again, or the base model, at once.

    An open canary is taken back first, and alone: what serves beside it stays, and a second undo takes that back. A
    rollout that is staged or in its shadow answers no client: then what had settled before it is taken back. --to what
    serves ends the open rollout and nothing else.

    What is still loaded is flipped to at once; another adapter is loaded and verified first. `--to base` asks for
    confirmation in a terminal.

    Works with the daemon down, on its machine: the next routes generation is journaled and written to routes.json,
    gateways on this machine read it, and the daemon carries on from there at its next start. A daemon that hangs has
    to be stopped first.

    \b
    Examples:
      tao-daemon rollout undo --reason "answers got longer"
      tao-daemon rollout undo --to base --yes --reason "incident 42"
    """
    if to == "base":
        confirm("Serve the base model, without any adapter?", yes=yes)
    key = new_key()
    try:
        answer = act(client, "/v1/rollout/undo", reason, key=key, patience=_UNDO_PATIENCE_SECONDS, to=to)
    except DaemonUnreachable as error:
        # A daemon that hangs still owns its data; and only under the local token is it known whether it acted.
        unknown = isinstance(error, AnswerLost) and not client.is_administrator
        if not client.is_local or unknown or isinstance(error, AnswerLate):
            raise
        click.echo("the daemon is down: undoing in its journal", err=True)
        from tao_daemon.app.operations import journaled

        event = UndoRequested(actor(), reason or NO_REASON, to)
        answer = journaled.undo(client.config, event, key, time.time)
    report(answer, as_json=as_json)


def _show_status(found: Document) -> None:
    from tao_daemon.cli import rollout_view, tables

    tables.show(rollout_view.render(found, time.time()))


def _show_history(found: Sequence[Document]) -> None:
    from tao_daemon.cli import rollout_view, tables

    tables.show(rollout_view.history(found))


def _picked(found: Document) -> Document:
    return {name: found[name] for name in _SHOWN}


def _over(found: Document) -> bool:
    return not is_open(found["rollout"])
