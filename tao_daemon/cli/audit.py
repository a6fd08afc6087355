"""`tao-daemon audit`: the journal, read directly and read-only, so that it works with the daemon up and down."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from tao_daemon.cli.durations import moment
from tao_daemon.cli.exits import FAILED
from tao_daemon.cli.options import config_option, json_option, read_config
from tao_daemon.cli.output import clean_line, echo_json, echo_json_line
from tao_daemon.domain.errors import JournalError
from tao_daemon.domain.lifecycle import JournalHead
from tao_daemon.registry.export import FORMATS

if TYPE_CHECKING:
    from tao_daemon.registry.chain import Row
    from tao_daemon.registry.journal import Entry
    from tao_daemon.registry.journal_reader import ReadOnlyJournal

_FOLLOW_SECONDS = 1.0
_LEAST_HASH_DIGITS = 12


class _Head(click.ParamType):  # type: ignore[type-arg]
    """SEQ:HASH, as `audit verify` prints it and as lifecycle events carry it."""

    name = "SEQ:HASH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> JournalHead:
        seq, _, digest = str(value).partition(":")
        digits = digest.lower()
        if not seq.isdecimal() or len(digits) < _LEAST_HASH_DIGITS or set(digits) - set("0123456789abcdef"):
            self.fail(f"{value!r} is no head: write 41:9f86d081884c, the hash with at least 12 digits", param, ctx)
        return JournalHead(int(seq), digits)


@click.group()
def command() -> None:
    """Every decision and every human action, who made it and why: hash-chained, so that tampering shows.

    \b
    Examples:
      tao-daemon audit show --type "Rollout*" --actor ann
      tao-daemon audit show --follow
      tao-daemon audit verify --head 41:9f86d081884c
      tao-daemon audit export audit.jsonl
    """


@command.command()
@config_option
@json_option
@click.option("--after", type=click.IntRange(min=0), help="The entries after this number, the oldest first.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=0), help="How many; 0 for all.")
@click.option("--type", "types", multiple=True, metavar="PATTERN", help='Only such events: "Undo*". Repeatable.')
@click.option("--actor", help="Only what this person or part did.")
@click.option("--follow", is_flag=True, help="Then print what is added, until Ctrl-C.")
@click.option("--full", is_flag=True, help="With the whole event, the commands, the state and the hashes.")
def show(
    config_path: Path,
    as_json: bool,
    after: int | None,
    limit: int,
    types: tuple[str, ...],
    actor: str | None,
    follow: bool,
    full: bool,
) -> None:
    """Print entries in order: the newest ones, or those after --after.

    \b
    Examples:
      tao-daemon audit show                              # the newest 50
      tao-daemon audit show --after 0 --limit 0          # all of them
      tao-daemon audit show --type "Undo*" --type "Rollout*" --json
    """

    def is_wanted(entry: Entry) -> bool:
        kind = str(entry.event["type"]).lower()
        matches = not types or any(fnmatchcase(kind, pattern.lower()) for pattern in types)
        return matches and (actor is None or entry.actor == actor)

    journal = _journal(config_path)
    last = journal.last()
    for entry in _chosen(journal, is_wanted, after, limit or None):
        _tell(entry, as_json=as_json, full=full)
    while follow:
        time.sleep(_FOLLOW_SECONDS)
        for entry in journal.entries(last.seq if last else 0):
            last = entry
            if is_wanted(entry):
                _tell(entry, as_json=as_json, full=full)


@command.command()
@config_option
@json_option
@click.argument("exported", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--head", "given", multiple=True, type=_Head(), help="A head that was published. Repeatable.")
@click.option("--events", type=click.File(), help="CloudEvents with published heads, one per line; - for stdin.")
@click.option("--source", help="Only events of this source; default: [events] source, for the journal of a config.")
def verify(
    config_path: Path,
    as_json: bool,
    exported: Path | None,
    given: tuple[JournalHead, ...],
    events: IO[str] | None,
    source: str | None,
) -> None:
    """Check the hash chain, of the journal or an export.

    The first entry that was touched is named, with exit code 1. EXPORTED is a file that `audit export` wrote.

    A chain that somebody rewrote from some entry on, or cut off at its end, is whole again. That shows against heads
    that were published before: every lifecycle event carries one (`data.journal`), this command prints one.

    \b
    Examples:
      tao-daemon audit verify
      tao-daemon audit verify --head 41:9f86d081884c
      tao-daemon audit verify --events events.jsonl      # as read from the topic of [events]
      tao-daemon audit verify audit.jsonl                # an export, without config and database
    """
    from tao_daemon.registry.chain import check

    rows: Iterable[Row]
    if exported is None:
        config = read_config(config_path)
        rows, source = _journal(config_path).rows(), source or config.events.source
    else:
        rows = _exported(exported)
    published = [*given, *_heads_in(events, source)]
    if events is not None and len(published) == len(given):
        raise click.UsageError(f"no event of source {source!r} in {events.name}; see --source")
    end, problem = check(rows, published)
    if as_json:
        found = {"entries": end.seq, "head": asdict(end), "published": len(published), "problem": problem}
        echo_json(found)
    elif problem is None:
        agreed = f", as {len(published)} published heads say" if published else ""
        click.echo(f"{end.seq} entries, the chain is whole{agreed}; its head is {end}")
    if problem is not None:
        if not as_json:
            click.echo(f"error: {problem}", err=True)
        raise SystemExit(FAILED)


@command.command()
@config_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--format", "form", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True)
def export(config_path: Path, file: Path, form: str) -> None:
    """Write the whole chain to FILE (- is stdout).

    Hashes included: `audit verify FILE` needs nothing else. Only its owner may read FILE.

    \b
    Examples:
      tao-daemon audit export audit.jsonl
      tao-daemon audit export - --format csv > audit.csv
    """
    rows = _journal(config_path).rows()
    if str(file) == "-":
        end, problem = _written(rows, sys.stdout, form)
    else:
        from tao_daemon.clients.storage import remove_unfinished_of, replacing

        remove_unfinished_of(file)
        with replacing(file, mode=0o600) as raw:
            out = io.TextIOWrapper(raw, encoding="utf-8", newline="", write_through=True)
            end, problem = _written(rows, out, form)
    if problem is not None:
        raise JournalError(f"exported as it is, but {problem}")
    click.echo(f"{end.seq} entries exported, the chain is whole; its head is {end}", err=True)


def _journal(config_path: Path) -> ReadOnlyJournal:
    from tao_daemon.app.paths import journal_path
    from tao_daemon.registry.journal_reader import ReadOnlyJournal

    return ReadOnlyJournal(journal_path(read_config(config_path)))


def _exported(path: Path) -> Iterator[Row]:
    from tao_daemon.registry.export import read_rows

    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        yield from read_rows(file, path.name)


def _written(rows: Iterable[Row], out: IO[str], form: str) -> tuple[JournalHead, str | None]:
    """The last good head, and what is wrong. What is broken is evidence too: all of it goes out."""
    from tao_daemon.registry.chain import check
    from tao_daemon.registry.export import write_rows

    written = write_rows(rows, out, form)
    found = check(written)
    for _ in written:
        pass
    return found


def _heads_in(events: IO[str] | None, source: str | None) -> list[JournalHead]:
    from tao_daemon.notification.cloud_event import published_heads

    if events is None:
        return []
    try:
        return list(published_heads(events, source))
    except ValueError as error:
        raise click.UsageError(f"{events.name}: {error}") from None


def _chosen(journal: ReadOnlyJournal, is_wanted: Any, after: int | None, limit: int | None) -> Iterator[Entry]:
    """In order: the first after a number, or the newest."""
    if after is not None:
        yield from islice(filter(is_wanted, journal.entries(after)), limit)
        return
    yield from reversed(list(islice(filter(is_wanted, journal.newest_first()), limit)))


def _tell(entry: Entry, *, as_json: bool, full: bool) -> None:
    value = asdict(entry)
    if not full:
        del value["state_after"]
    if as_json:
        echo_json_line(value)
        return
    told = (f"{clean_line(entry.actor):12}", f"{clean_line(str(entry.event['type'])):22}", clean_line(entry.note))
    click.echo(" ".join((f"{entry.seq:6}", moment(entry.at), *told)))
    if full:
        echo_json({name: value[name] for name in ("event", "commands", "state_after", "prev_hash", "hash")})
