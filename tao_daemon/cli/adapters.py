"""`tao-daemon adapters`: what was trained, from what."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from tao_daemon.cli.client import ControlClient
from tao_daemon.cli.options import config_option, json_option, read_config


@click.command()
@config_option
@json_option
def command(config_path: Path, as_json: bool) -> None:
    """List adapters with their lineage, oldest first."""
    adapters = ControlClient(read_config(config_path)).get("/v1/adapters")["adapters"]
    if as_json:
        click.echo(json.dumps(adapters, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("adapter", "round", "parent", "rank", "prompts", "created", box=None)
    for item in adapters:
        lineage = item["lineage"]
        created = datetime.fromtimestamp(item["created_at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        parent = lineage["parent"] or "base model"
        table.add_row(
            item["name"], str(lineage["round"]), parent, str(item["rank"]), str(lineage["prompt_ids"]), created
        )
    Console().print(table)
