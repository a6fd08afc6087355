"""`tao-daemon check-config`: is the file right, and what does it amount to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from tao_daemon.app.checking import check_parts
from tao_daemon.cli.options import json_option, read_whole_config


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default=Path("config.toml"))
@json_option
def command(file: Path, as_json: bool) -> None:
    """Check FILE: unknown keys, wrong values, missing secrets; then the files and functions that scorers and strategies
    name. Exit code 2 names the problems.

    \b
    Examples:
      tao-daemon check-config config.toml
      tao-daemon check-config config.toml --json | jq .gate
    """
    config = read_whole_config(file)
    asyncio.run(check_parts(config))
    if as_json:
        click.echo(config.model_dump_json(indent=2))
        return
    click.echo(f"{file} is valid.")
    for name, values in config.model_dump(mode="json", exclude_defaults=True).items():
        click.echo(f"  [{name}] sets {', '.join(values) if isinstance(values, dict) else len(values)}")
