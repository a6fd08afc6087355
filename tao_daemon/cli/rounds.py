"""`tao-daemon round`: list, show, compare, replay, start and cancel rounds."""

from __future__ import annotations

from collections.abc import Sequence

import click

from tao_daemon.cli.client import ControlClient
from tao_daemon.cli.completion import round_numbers
from tao_daemon.cli.conditions import Condition, next_round
from tao_daemon.cli.durations import Duration
from tao_daemon.cli.exits import FAILED, TIMED_OUT
from tao_daemon.cli.looks import Document
from tao_daemon.cli.options import daemon_options, json_option, reason_option
from tao_daemon.cli.output import clean_line, tell
from tao_daemon.cli.past import past
from tao_daemon.cli.verbs import act, report
from tao_daemon.domain.errors import TaoError
from tao_daemon.domain.report import AnswerOrder

_ORDERS = tuple(order.value for order in AnswerOrder)


@click.group()
def command() -> None:
    """List, show, compare, replay, start and cancel rounds.

    \b
    Examples:
      tao-daemon round list
      tao-daemon round show 7
      tao-daemon round run --wait --reason "new prompts"
    """


@command.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="The newest so many.")
@json_option
@daemon_options
def list_rounds(client: ControlClient, limit: int, as_json: bool) -> None:
    """Rounds with their outcome and held-out gain, oldest first.

    Works with the daemon down.

    \b
    Examples:
      tao-daemon round list
      tao-daemon round list --json | jq '.[] | select(.outcome == "accepted") | .round'
    """
    found = past(client, "/v1/rounds", lambda disk: disk.rounds(limit), limit=limit)["rounds"]
    tell(found, as_json, _show_list)


@command.command()
@click.argument("number", type=click.IntRange(min=1), shell_complete=round_numbers)
@click.option("--answers", type=click.IntRange(1, 200), metavar="K", help="K held-out prompts with both answers.")
@click.option("--order", type=click.Choice(_ORDERS), default="regressions", show_default=True, help="Which come first.")
@json_option
@daemon_options
def show(client: ControlClient, number: int, answers: int | None, order: str, as_json: bool) -> None:
    """Show round NUMBER: how it ended, and why.

    With the gate's figures, the phases and the rewards. Works with the daemon down. Text of prompts and answers is
    shown with --answers only, and by a running daemon only.

    \b
    Examples:
      tao-daemon round show 7
      tao-daemon round show 7 --answers 5                   # where the candidate is worse
      tao-daemon round show 7 --answers 5 --order gains
      tao-daemon round show 7 --json | jq .verdict.numbers
    """
    found = past(client, f"/v1/rounds/{number}", lambda disk: disk.round(number))
    sides = client.get(f"/v1/rounds/{number}/answers", order=order, limit=answers) if answers else None
    tell({**found, "answers": sides} if sides else found, as_json, lambda found: _show_round(client, number, found))


@command.command()
@click.argument("left", type=click.IntRange(min=1), shell_complete=round_numbers)
@click.argument("right", type=click.IntRange(min=1), shell_complete=round_numbers)
@json_option
@daemon_options
def compare(client: ControlClient, left: int, right: int, as_json: bool) -> None:
    """Show rounds LEFT and RIGHT side by side.

    Every figure, and by how much it changed. Works with the daemon down.

    \b
    Example:
      tao-daemon round compare 6 7
    """
    ask = {"left": left, "right": right}
    tell(
        past(client, "/v1/rounds/compare", lambda disk: disk.comparison(left, right), **ask), as_json, _show_comparison
    )


@command.command()
@click.argument("number", type=click.IntRange(min=1), shell_complete=round_numbers)
@json_option
@daemon_options
def replay(client: ControlClient, number: int, as_json: bool) -> None:
    """Decide round NUMBER again, from what it left.

    Exit code 1 when anything comes out differently. Works on the daemon's own machine, with the daemon up or down;
    changes nothing and asks no server.

    \b
    Examples:
      tao-daemon round replay 7
      tao-daemon round replay 7 --json | jq '.checks[] | select(.same | not)'
    """
    from tao_daemon.app.replay.rounds import replay_round

    found = replay_round(client.config, number)
    tell(found, as_json, _show_replay)
    if not found["matches"]:
        raise SystemExit(FAILED)


@command.command()
@click.option("--wait", is_flag=True, help="Until it has ended; exit code 0 when its candidate was accepted.")
@click.option("--timeout", type=Duration(), default="2h", show_default=True, help="Of --wait: 90s, 30m, 2h.")
@reason_option
@json_option
@daemon_options
def run(client: ControlClient, wait: bool, timeout: float, reason: str, as_json: bool) -> None:
    """Start a round now, or as soon as the running one ends.

    It waits for an open rollout too, unless that lacks an approval alone and rollout.newer_candidate is "supersede".

    \b
    Examples:
      tao-daemon round run --reason "new prompts"
      tao-daemon round run --wait --timeout 1h && tao-daemon wait --for settled
    """
    number = next_round(client.get("/v1/status"), running_counts=False)
    answer = act(client, "/v1/rounds", reason)
    if not wait or answer["refused"]:
        report(answer, as_json=as_json)
        return
    click.echo(clean_line(answer["note"]), err=True)
    from tao_daemon.cli.wait import wait_for

    finding = wait_for(client, Condition.ACCEPTED, timeout, number=number)
    ended = {"round": number, "accepted": finding.reached, "note": finding.text}
    tell(ended, as_json, lambda ended: click.echo(clean_line(ended["note"])))
    if not finding.reached:
        raise SystemExit(FAILED if finding.lost else TIMED_OUT)


@command.command()
@reason_option
@json_option
@daemon_options
def cancel(client: ControlClient, reason: str, as_json: bool) -> None:
    """Cancel the running round; its prompts return to the pool.

    \b
    Example:
      tao-daemon round cancel --reason "the servers are needed"
    """
    report(act(client, "/v1/rounds/cancel", reason), as_json=as_json)


def _show_list(found: Sequence[Document]) -> None:
    from tao_daemon.cli import round_view, tables

    tables.show(round_view.listing(found))


def _show_round(client: ControlClient, number: int, found: Document) -> None:
    from tao_daemon.cli import answer_view, round_view, tables

    tables.show(round_view.report(found, _rewards(client, number, found)))
    if "answers" in found:
        tables.show(answer_view.side_by_side(found["answers"]))


def _show_comparison(found: Document) -> None:
    from tao_daemon.cli import round_view, tables

    tables.show(round_view.comparison(found))


def _show_replay(found: Document) -> None:
    from tao_daemon.cli import round_view, tables

    tables.show(round_view.replay(found))


def _rewards(client: ControlClient, number: int, found: Document) -> Document | None:
    """The distribution of rewards; None for a round that did not come so far, or whose tables are gone."""
    if "scoring" not in found.get("phases", {}):
        return None
    try:
        path = f"/v1/rounds/{number}/rewards"
        return dict(past(client, path, lambda disk: disk.rewards(number)))
    except TaoError:
        return None
