"""`tao-daemon buffer`: prompts from a file, and what the buffer holds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from tao_daemon.cli.client import ControlClient, DaemonUnreachable
from tao_daemon.cli.options import config_option, json_option, read_config


@click.group()
def command() -> None:
    """Import prompts from a file; what the buffer holds."""


@command.command("import")
@config_option
@json_option
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def import_file(config_path: Path, as_json: bool, file: Path) -> None:
    """Buffer FILE, one OpenAI request as JSON per line. Needs the daemon stopped: the buffer has one writer.

    Importing the same file again changes nothing. Lines that cannot be prompts are listed with their number.

    \b
    Example:
      tao-daemon buffer import prompts.jsonl
    """
    from tao_daemon.app.offline import import_prompts

    result = asyncio.run(import_prompts(read_config(config_path), file))
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(
        f"{result['train']} train, {result['held_out']} held-out, {result['excluded']} excluded, "
        f"{result['duplicates']} already there, {len(result['rejected'])} rejected"
    )
    for line in result["rejected"]:
        click.echo(f"  line {line['line']}: {line['code']}", err=True)


@command.command()
@config_option
@json_option
def stats(config_path: Path, as_json: bool) -> None:
    """Counts by split, from the daemon, or from the file when it is down."""
    config = read_config(config_path)
    try:
        found = ControlClient(config).get("/v1/status")["buffer"]
    except DaemonUnreachable:
        from tao_daemon.app.offline import buffer_stats

        found = asyncio.run(buffer_stats(config))
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(f"{k:22} {v}" for k, v in (found or {}).items()))
