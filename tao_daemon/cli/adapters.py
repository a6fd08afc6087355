"""`tao-daemon adapters`: what was trained, from what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import click

from tao_daemon.cli.client import ControlClient
from tao_daemon.cli.completion import adapter_names
from tao_daemon.cli.durations import moment
from tao_daemon.cli.headline import undo_ends_canary
from tao_daemon.cli.options import daemon_options, json_option
from tao_daemon.cli.output import tell


class _ListByDefault(click.Group):
    """`adapters` and `adapters --json` are `adapters list`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ListByDefault)
def command() -> None:
    """List adapters, and show what one was made from. Without a command: list.

    \b
    Examples:
      tao-daemon adapters
      tao-daemon adapters list --json
      tao-daemon adapters show r000007-3f2a9c1b7d10
    """


@command.command("list")
@json_option
@daemon_options
def list_adapters(client: ControlClient, as_json: bool) -> None:
    """List adapters with their lineage, oldest first.

    \b
    Example:
      tao-daemon adapters list --json | jq -r '.[].name'
    """
    tell(client.get("/v1/adapters")["adapters"], as_json, lambda found: _show_table(client, found))


@command.command()
@click.argument("name", shell_complete=adapter_names)
@json_option
@daemon_options
def show(client: ControlClient, name: str, as_json: bool) -> None:
    """Show what adapter NAME was made from.

    The round and the number of prompts it comes from, its parent, base model, scorers and settings.

    \b
    Example:
      tao-daemon adapters show r000007-3f2a9c1b7d10
    """
    tell(client.get(f"/v1/adapters/{quote(name, safe='')}"), as_json, _show_facts)


def row(item: Mapping[str, Any], roles: Mapping[str | None, str]) -> tuple[str, ...]:
    """A line of the list; `roles` says what the adapter does now, by name."""
    role = roles.get(item["name"], "")
    if "lineage" not in item:
        return item["name"], "-", "-", "-", "-", "-", item.get("problem") or role
    lineage = item["lineage"]
    return (
        item["name"],
        str(lineage["round"]),
        lineage["parent"] or "base model",
        str(item["rank"]),
        str(lineage["prompt_ids"]),
        moment(item["created_at"]),
        role,
    )


def describe(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Everything that is known of where an adapter comes from; of a damaged one, why it is."""
    rows = [("adapter", item["name"])]
    if item.get("problem"):
        rows.append(("problem", item["problem"]))
    if "lineage" not in item:
        return rows
    lineage = item["lineage"]
    rows += [
        ("digest", item["digest"]),
        ("rank", str(item["rank"])),
        ("created", f"{moment(item['created_at'])} UTC"),
        ("round", f"{lineage['round']}   (tao-daemon round show {lineage['round']})"),
        ("parent", lineage["parent"] or "base model"),
        ("base model", f"{lineage['base_model']}, digest {lineage['base_digest']}"),
        ("settings", f"digest {lineage['config_digest']}"),
        ("scorers", ", ".join(lineage["scorers"]) or "-"),
        ("prompts", str(lineage["prompt_ids"])),
    ]
    if carried := lineage.get("carried_from"):
        rows.append(("carried", f"groups of {', '.join(f'round {number}' for number in carried)} trained again"))
    spans = [f"{each['topic']}/{each['partition']} {each['first']}-{each['last']}" for each in lineage["offsets"]]
    return [*rows, ("offsets", "\n".join(spans) or "-")]


def _show_table(client: ControlClient, found: Sequence[Mapping[str, Any]]) -> None:
    from tao_daemon.cli import tables

    status = client.get("/v1/status")
    incumbent, way_back = status["incumbent"], "another undo" if undo_ends_canary(status) else "undo"
    roles = {incumbent["previous"]: f"{way_back} goes to", incumbent["adapter"]: "serves"}
    columns = ("adapter", "round", "parent", "rank", "prompts", "created (UTC)", "now")
    rows = [row(each, roles) for each in found]
    tables.show(lambda marks: tables.table(columns, rows, numbers=("round", "rank", "prompts")))


def _show_facts(found: Mapping[str, Any]) -> None:
    from tao_daemon.cli import tables

    tables.show(lambda marks: tables.facts(describe(found)))
