"""`tao-daemon wait`: block a script until the daemon has come to a point, or can no longer come to it."""

from __future__ import annotations

import click

from tao_daemon.cli.client import ControlClient, DaemonTroubled, DaemonUnreachable
from tao_daemon.cli.completion import adapter_names, round_numbers
from tao_daemon.cli.conditions import MEANINGS, Condition, Document, Finding, Goal, begin, check, follow_up, wants
from tao_daemon.cli.durations import Duration, format_duration
from tao_daemon.cli.exits import FAILED, INTERRUPTED, TIMED_OUT
from tao_daemon.cli.looks import looks, outage
from tao_daemon.cli.options import daemon_options, json_option
from tao_daemon.cli.output import clean_line, echo_json
from tao_daemon.domain.errors import TaoError

_LOOK_SECONDS = 15.0
"""At least so often, though events wake it."""

_CONDITIONS = "\n".join(f"{condition.value:<15} {text}" for condition, text in MEANINGS.items())
_HELP = f"""Wait until a condition holds. A daemon that is down or restarts is waited for, too.

\b
Conditions:
{chr(10).join("  " + line for line in _CONDITIONS.splitlines())}

Of rounds, the one that runs is meant, or else the next one; of rollouts, the open one, or else the next. Exit code 0
when it is reached, 1 when it can no longer be reached (and why), 5 when the time is over.

\b
Examples:
  tao-daemon wait --for ready --timeout 60s && echo up
  tao-daemon wait --for settled --timeout 2h
  tao-daemon round run --reason "new prompts" && tao-daemon wait --for accepted --timeout 1h
  tao-daemon wait --for ended --rollout r000007-3f2a9c1b7d10 || tao-daemon rollout status
"""


@click.command(help=_HELP)
@click.option(
    "--for", "condition", type=click.Choice([each.value for each in Condition]), required=True, help="What to wait for."
)
@click.option("--timeout", type=Duration(), default="30m", show_default=True, help="At most: 90s, 30m, 2h.")
@click.option("--round", "number", type=click.IntRange(min=1), shell_complete=round_numbers, help="Of this round.")
@click.option("--rollout", metavar="ADAPTER", shell_complete=adapter_names, help="Of this adapter's rollout.")
@json_option
@daemon_options
def command(
    client: ControlClient, condition: str, timeout: float, number: int | None, rollout: str | None, as_json: bool
) -> None:
    finding = wait_for(client, Condition(condition), timeout, number=number, rollout=rollout)
    if as_json:
        echo_json({"condition": condition, "reached": finding.reached, "note": finding.text})
    else:
        click.echo(clean_line(finding.text), err=not finding.reached)
    if not finding.reached:
        raise SystemExit(FAILED if finding.lost else TIMED_OUT)


def wait_for(
    client: ControlClient,
    condition: Condition,
    seconds: float,
    *,
    number: int | None = None,
    rollout: str | None = None,
) -> Finding:
    """Wait, telling on stderr what it waits for. Neither reached nor lost: the time was over."""
    goal: Goal | None = None
    told = ""
    try:
        for look in looks(client, "/v1/status", _LOOK_SECONDS, patience=seconds):
            text = outage(look) if look.found is None else ""
            if look.found is not None:
                goal = follow_up(goal or begin(condition, look.found, round=number, rollout=rollout), look.found)
                finding = _look_closer(client, goal, look.found)
                if finding.reached or finding.lost:
                    return finding
                text = finding.text
            if text.partition(" since ")[0] != told.partition(" since ")[0]:
                click.echo(clean_line(text), err=True)
            told = text
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    return Finding(f"{condition.value} was not reached within {format_duration(seconds)}; {told or 'no time to look'}")


def _look_closer(client: ControlClient, goal: Goal, status: Document) -> Finding:
    path = wants(goal, status)
    try:
        return check(goal, status, client.get(path) if path else None)
    except (DaemonUnreachable, DaemonTroubled) as error:
        return Finding(str(error))
    except TaoError:
        if path and path.startswith("/v1/rounds/"):
            return check(goal, status, None)
        raise
