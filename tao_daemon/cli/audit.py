"""`tao-daemon audit`: the journal, read directly, so that it works with the daemon down."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from tao_daemon.cli.options import config_option, json_option, read_config
from tao_daemon.domain.errors import JournalError


@click.group()
def command() -> None:
    """Show and verify the audit log: every decision, who made it and why."""


@command.command()
@config_option
@json_option
@click.option("--after", default=0, help="Only entries with a sequence number above this.")
def show(config_path: Path, as_json: bool, after: int) -> None:
    """Print the entries in order."""
    for entry in _open(config_path).entries(after):
        if as_json:
            click.echo(json.dumps(asdict(entry)))
        else:
            when = datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
            click.echo(f"{entry.seq:6} {when} {entry.actor:12} {entry.event['type']:22} {entry.note}")


@command.command()
@config_option
def verify(config_path: Path) -> None:
    """Check the hash chain; a changed or missing entry is named, exit code 1."""
    count = _open(config_path).verify()
    click.echo(f"{count} entries, the chain is whole")


def _open(config_path: Path):  # type: ignore[no-untyped-def]
    from tao_daemon.app.paths import journal_path
    from tao_daemon.registry.journal import Journal

    path = journal_path(read_config(config_path))
    if not path.exists():
        raise JournalError(f"there is no journal at {path}; has the daemon ever run with this config?")
    return Journal(path)
