"""What every verb that changes something does: say who and why, print the daemon's note, answer a refusal with 4."""

from __future__ import annotations

import secrets
import sys
from typing import Any

import click

from tao_daemon.cli.client import PATIENCE_SECONDS, ControlClient
from tao_daemon.cli.exits import REFUSED
from tao_daemon.cli.options import actor
from tao_daemon.cli.output import clean_line, tell
from tao_daemon.domain.events import NO_REASON


def act(
    client: ControlClient,
    path: str,
    reason: str,
    *,
    key: str | None = None,
    patience: float = PATIENCE_SECONDS,
    **more: Any,
) -> dict[str, Any]:
    """Ask for a change; what came of it: `note`, `refused`, the journal's `seq`."""
    body = {"actor": actor(), "reason": reason or NO_REASON, **more}
    answer: dict[str, Any] = client.post(path, body, key=key or new_key(), patience=patience)
    return answer


def new_key() -> str:
    """Names one request, so that sending it twice does it once."""
    return secrets.token_hex(16)


def report(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print what the daemon did; what it refused is exit code 4."""
    tell(answer, as_json, lambda answer: click.echo(clean_line(answer["note"])))
    if answer["refused"]:
        raise SystemExit(REFUSED)


def confirm(question: str, *, yes: bool) -> None:
    """Ask a person, never a program: without a terminal nothing is asked. A no ends the command, exit code 1."""
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)
