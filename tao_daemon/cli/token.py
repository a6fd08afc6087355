"""`tao-daemon token`: named tokens with scopes, for people, programs and gateways."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import click

from tao_daemon.cli.client import AnswerLost, ControlClient, DaemonUnreachable
from tao_daemon.cli.durations import moment
from tao_daemon.cli.options import actor, daemon_options, json_option, reason_option
from tao_daemon.cli.output import echo_json, tell
from tao_daemon.cli.verbs import report
from tao_daemon.control.scopes import Scope
from tao_daemon.domain.events import NO_REASON

_PATH = "/v1/tokens"
_SCOPES = tuple(scope.value for scope in Scope)
_MOMENTS = ("created", "expires", "revoked")


@click.group()
def command() -> None:
    """Create, list and revoke tokens for the control API.

    \b
    Scopes, each for one kind of holder:
      read       look at everything, prompts and answers included
      operate    read, and start and cancel rounds, pause, resume, abort, undo
      approve    operate, and approve and promote: lets a candidate serve
      gateway    the routes and a gateway's own reports, nothing else
      admin      everything, tokens too

    \b
    Examples:
      tao-daemon token create alice --scope approve --days 90
      tao-daemon token list
      tao-daemon token revoke 1f3a9c2e --reason "left the team"
    """


@command.command()
@click.argument("name")
@click.option("--scope", "scopes", type=click.Choice(_SCOPES), multiple=True, required=True, help="May be repeated.")
@click.option("--days", type=click.FloatRange(0, 3650, min_open=True), help="Valid so long; default: until revoked.")
@reason_option
@json_option
@daemon_options
def create(
    client: ControlClient, name: str, scopes: tuple[str, ...], days: float | None, reason: str, as_json: bool
) -> None:
    """Create a token for NAME, and print its secret once.

    The secret is alone on stdout, and kept nowhere.

    NAME is the actor in the audit log of whatever is done with it. Works with the daemon down, on its machine.

    \b
    Examples:
      TOKEN=$(tao-daemon token create ci --scope operate --days 30)
      (umask 077; tao-daemon token create gateway-eu --scope gateway > /etc/tao/gateway.token)
    """
    why = reason or NO_REASON
    body = {"name": name, "scopes": list(scopes), "days": days, "actor": actor(), "reason": why}
    try:
        made: dict[str, Any] = client.post(_PATH, body)
    except DaemonUnreachable as error:
        _only_when_down(client, error)
        from tao_daemon.app.operations.journaled import create_token

        made = create_token(client.config, name, scopes, days, time.time, actor=actor(), reason=why)
    if as_json:
        echo_json(made)
        return
    until = f"valid for {days:g} days" if days else "valid until it is revoked"
    click.echo(f"token {made['id']} of {name} may {', '.join(scopes)}; {until}; shown this once:", err=True)
    click.echo(made["token"])


@command.command("list")
@json_option
@daemon_options
def list_tokens(client: ControlClient, as_json: bool) -> None:
    """List every token there was, without secrets.

    Works with the daemon down, on its machine.

    \b
    Examples:
      tao-daemon token list
      tao-daemon token list --json | jq -r '.[] | select(.revoked_at == null) | .name'
    """
    try:
        found = client.get(_PATH)["tokens"]
    except DaemonUnreachable:
        if not client.is_local:
            raise
        from tao_daemon.app.operations import journaled

        found = journaled.list_tokens(client.config)
    tell(found, as_json, _show_table)


@command.command()
@click.argument("token_id", metavar="ID")
@reason_option
@json_option
@daemon_options
def revoke(client: ControlClient, token_id: str, reason: str, as_json: bool) -> None:
    """End the token with ID at once.

    Works with the daemon down, on its machine.

    \b
    Example:
      tao-daemon token revoke 1f3a9c2e --reason "left the team"
    """
    why = reason or NO_REASON
    try:
        answer = client.delete(f"{_PATH}/{quote(token_id, safe='')}", actor=actor(), reason=why)
    except DaemonUnreachable as error:
        _only_when_down(client, error)
        from tao_daemon.app.operations.journaled import revoke_token

        answer = revoke_token(client.config, token_id, time.time, actor=actor(), reason=why)
    report(answer, as_json=as_json)


def _show_table(found: Sequence[Mapping[str, Any]]) -> None:
    from tao_daemon.cli import tables

    columns = ("id", "name", "scopes", "created (UTC)", "expires", "revoked")
    rows = [
        (each["id"], each["name"], ", ".join(each["scopes"]), *map(moment, (each[f"{what}_at"] for what in _MOMENTS)))
        for each in found
    ]
    tables.show(lambda marks: tables.table(columns, rows))


def _only_when_down(client: ControlClient, error: DaemonUnreachable) -> None:
    """Raise unless nobody listened: whoever went away before it answered may have acted."""
    if not client.is_local or isinstance(error, AnswerLost):
        raise error
    click.echo("the daemon is down: writing to its journal; it knows at its next start", err=True)
