"""What `tao-daemon buffer` prints for people. No text of prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from tao_daemon.cli.durations import moment
from tao_daemon.cli.output import clean_line

_SHOWN_TENANTS = 10
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def show_stats(found: Mapping[str, Any]) -> None:
    """GET /v1/buffer, or the same from the file."""
    for label, value in _facts(found):
        click.echo(f"{label:<12} {value}")


def show_import(found: Mapping[str, Any]) -> None:
    click.echo(
        f"{found['train']} train, {found['held_out']} held-out, {found['excluded']} excluded, "
        f"{found['duplicates']} already there, {len(found['rejected'])} rejected"
    )
    for line in found["rejected"]:
        click.echo(f"  line {line['line']}: {line['code']}", err=True)


def show_erasure(found: Mapping[str, Any]) -> None:
    """What was erased, or would be; who learned from it; what is out of reach."""
    verb = "would be erased" if found["dry_run"] else "erased"
    if found["finished_earlier"]:
        click.echo("an erasure that had been interrupted is finished")
    if not found["prompts"]:
        click.echo(f"no prompt has this {found['selected_by']}: nothing to erase")
        return
    rounds = f", in rounds {', '.join(map(str, found['rounds']))}" if found["rounds"] else ""
    click.echo(f"{found['prompts']} prompts and {found['rows']} rows of rounds {verb}{rounds}")
    for adapter in found["adapters"]:
        _show_adapter(adapter)
    if found["adapters"]:
        click.echo(
            "weights keep what they learned: where that may not be, serve another adapter "
            "(`tao-daemon rollout undo --to base`) and let these be deleted"
        )
    click.echo("not reached: the topics in Kafka, and backups, exports and data directories set aside before")


def show_redrive(found: Mapping[str, Any]) -> None:
    verb = "would be buffered" if found["dry_run"] else "buffered"
    click.echo(f"{found['read']} dead letters read: {found['buffered']} {verb}, {found['duplicates']} already there")
    for code, count in found["still_failing"].items():
        click.echo(f"  {count} still fail: {clean_line(code)}")


def show_backup(found: Mapping[str, Any]) -> None:
    journal = f"journal to entry {found['journal']['seq']}" if found["journal"] else "no journal"
    click.echo(
        f"{found['backup']}: {found['prompts']} prompts, {journal}, {found['files']} files, {size(found['bytes'])}"
    )


def show_restore(found: Mapping[str, Any]) -> None:
    journal = f"journal to entry {found['journal']['seq']}" if found["journal"] else "no journal"
    click.echo(
        f"{found['data_dir']} is what it was at {moment(found['taken_at'])} UTC: {found['prompts']} prompts, {journal}"
    )
    if found["moved_aside"]:
        click.echo(f"what was there is in {found['moved_aside']}; delete it when nobody needs it")
    if found["forgotten_again"]:
        click.echo(f"{found['forgotten_again']} prompts that were forgotten after the backup are erased again")
    click.echo(
        "next: start the daemon. It reads Kafka from where the backup was: what came since is read again, nothing is "
        "buffered twice, and what Kafka has deleted meanwhile is counted as a gap. Gateways take the restored routes"
    )
    if not found["moved_aside"]:
        click.echo("erasures after the backup are not known here: forget those prompts again")


def size(count: int) -> str:
    """Bytes in the largest unit that leaves at least 1."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_SIZES) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_SIZES[unit]}" if unit == 0 else f"{value:.1f} {_SIZES[unit]}"


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if counts := found["stats"]:
        yield "train", f"{counts['train']} ({counts['train_available']} available)"
        yield "held-out", f"{counts['held_out']} ({counts['held_out_available']} available)"
        yield "excluded", f"{counts['excluded']} (like prompts of both splits)"
        yield "clusters", str(counts["clusters"])
    if details := found.get("details"):
        yield "claimed", f"{details['claimed']} by the running round"
        yield "exhausted", f"{details['exhausted']} took part in too many rounds"
        yield "arrived", f"{moment(details['oldest'])} to {moment(details['newest'])} UTC"
        yield "file", size(details["file_bytes"])
        yield "tenants", str(details["tenant_count"])
        for tenant, prompts in details["tenants"][:_SHOWN_TENANTS]:
            yield "", f"{prompts:>8}  {clean_line(tenant) or '(none)'}"
    yield "intake", found["intake"]
    if "unfinished_erasure" in found:
        yield "erasure", "interrupted; `tao-daemon buffer forget` with anything finishes it"


def _show_adapter(adapter: Mapping[str, Any]) -> None:
    learned = (
        f"trained on {adapter['trained_on']} of them" if adapter["trained_on"] else "continues one trained on them"
    )
    click.echo(f"  {adapter['name']}: {learned}; serves {adapter['serves']}")
    if adapter["probes_taken"]:
        verdict = "" if adapter["verifiable"] else ": too few to verify it by, it cannot be loaded again"
        click.echo(
            f"    {adapter['probes_taken']} of its {adapter['probes_taken'] + adapter['probes_left']} probes "
            f"held their tokens{verdict}"
        )
