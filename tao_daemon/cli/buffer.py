"""`tao-daemon buffer`: what the buffer holds, prompts into it and out of it, erasing, backing up, restoring."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tao_daemon.cli import buffer_view
from tao_daemon.cli.client import DaemonUnreachable
from tao_daemon.cli.moments import Moment
from tao_daemon.cli.options import actor, config_option, connect, json_option, read_config, reason_option, yes_option
from tao_daemon.cli.output import tell
from tao_daemon.cli.progress import progress_bar
from tao_daemon.domain.errors import TaoError
from tao_daemon.domain.events import NO_REASON

if TYPE_CHECKING:
    from tao_daemon.app.operations.erasing import ErasureRequest

_NEW_PATH = click.Path(path_type=Path)
_DIRECTORY = click.Path(path_type=Path, file_okay=False, exists=True)


@click.group()
def command() -> None:
    """Look at the buffer, fill it, write it out, erase from it, back it up and restore it.

    All but stats need the daemon stopped: the buffer has one writer. What runs says which process that is.

    \b
    Examples:
      tao-daemon buffer stats
      tao-daemon buffer forget --subject user-4711 --reason "erasure request 12" --dry-run
      tao-daemon buffer backup /backups/tao-monday
    """


@command.command()
@config_option
@json_option
def stats(config_path: Path, as_json: bool) -> None:
    """Show counts by split, tenants, ages and size.

    Asks the daemon; when it is down, reads the file.

    \b
    Examples:
      tao-daemon buffer stats
      tao-daemon buffer stats --json | jq .stats.train_available
    """
    try:
        found = connect(config_path, None, None).get("/v1/buffer")
    except DaemonUnreachable:
        from tao_daemon.app.operations.prompts import buffer_stats

        with _files():
            found = asyncio.run(buffer_stats(read_config(config_path)))
    tell(found, as_json, buffer_view.show_stats)


@command.command("import")
@config_option
@json_option
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def import_file(config_path: Path, as_json: bool, file: Path) -> None:
    """Buffer FILE, one request as JSON per line.

    A line is an OpenAI request, or {"value": request, "headers": {"tenant": …}}, or what `export` wrote. Importing the
    same file again changes nothing. Lines that cannot be prompts are listed with their number.

    \b
    Example:
      tao-daemon buffer import prompts.jsonl
    """
    from tao_daemon.app.operations.prompts import import_prompts

    with _files(), progress_bar() as progress:
        result = asyncio.run(import_prompts(read_config(config_path), file, progress))
    tell(result, as_json, buffer_view.show_import)


@command.command()
@config_option
@json_option
@click.option("--tenant", help="Only this tenant's.")
@click.option("--since", type=Moment(), help="Only what arrived since: 2026-11-01, or 7d (ago).")
@click.option("--split", type=click.Choice(["train", "held_out", "excluded"]), help="Only this split.")
@click.argument("file", type=_NEW_PATH)
def export(
    config_path: Path, as_json: bool, tenant: str | None, since: float | None, split: str | None, file: Path
) -> None:
    """Write prompts to FILE (- is stdout), one JSON object per line.

    Each line holds the request as it was received, its headers, source, time of arrival and split, and can be imported
    again, here (nothing changes) or elsewhere (as the same prompt; the split is drawn anew). FILE must not exist; only
    its owner may read it.

    \b
    Examples:
      tao-daemon buffer export prompts.jsonl
      tao-daemon buffer export --tenant acme --since 7d - | jq -c .value
    """
    from tao_daemon.app.operations.prompts import export_prompts, export_to_file
    from tao_daemon.buffer.exporting import Filter
    from tao_daemon.domain.prompt import Split

    wanted = Filter(tenant, since, Split(split) if split else None)
    config = read_config(config_path)
    with _files(), progress_bar() as progress:
        if str(file) == "-":
            count = export_prompts(config, sys.stdout.buffer, wanted, progress)
            sys.stdout.flush()
        else:
            count = export_to_file(config, file, wanted, progress)
    if str(file) == "-":
        return
    tell({"file": str(file), "prompts": count}, as_json, lambda _: click.echo(f"{count} prompts in {file}"))


@command.command()
@config_option
@json_option
@reason_option
@yes_option
@click.option("--subject", help="Every prompt about or by this subject.")
@click.option("--tenant", help="Every prompt of this tenant.")
@click.option("--conversation", help="Every prompt of this conversation.")
@click.option("--prompt-id", help="This prompt.")
@click.option("--dry-run", is_flag=True, help="Say what would be erased, and change nothing.")
def forget(config_path: Path, as_json: bool, reason: str, yes: bool, dry_run: bool, **chosen: str | None) -> None:
    """Erase prompts from every file of data_dir, for good.

    From the buffer, from what rounds kept of them (completions, scores, answers) and from adapters' fingerprints; the
    files are written anew, so that a search of every byte finds nothing. What is erased does not come back, whatever
    is read or imported again. Adapters that were trained on the prompts are listed: their weights are not changed.
    Interrupted, it is finished by the next `forget`.

    The audit log keeps the reason for good, so a reason that names what is to be erased is refused.

    Out of reach, and to be seen to elsewhere: Kafka's topics; backups, exports and data directories set aside before.

    \b
    Examples:
      tao-daemon buffer forget --subject user-4711 --dry-run
      tao-daemon buffer forget --subject user-4711 --reason "erasure request 12" --yes
    """
    from tao_daemon.app.operations import erasing

    config, request = read_config(config_path), _erasure_request(chosen, reason)
    with _files():
        if dry_run or not yes:
            found = erasing.preview(config, request)
            if dry_run or not found["prompts"]:
                tell(found, as_json, buffer_view.show_erasure)
                return
            _confirm(found)
        with progress_bar() as progress:
            found = erasing.forget(config, request, time.time, progress)
    tell(found, as_json, buffer_view.show_erasure)


@command.command()
@config_option
@json_option
@click.option("--limit", type=click.IntRange(min=1), help="Buffer at most so many.")
@click.option("--code", help="Only those refused for this, such as too_large.")
@click.option("--since", type=Moment(), default=0.0, help="Only those refused since: 2026-11-01, or 7d (ago).")
@click.option("--dry-run", is_flag=True, help="Count, and buffer nothing.")
def redrive(config_path: Path, as_json: bool, limit: int | None, code: str | None, since: float, dry_run: bool) -> None:
    """Try the dead letters again with the present version and configuration.

    Reads the dead-letter topic from its beginning and buffers what can be read by now, as the record it was: doing it
    twice changes nothing. The topic is left as it is.

    \b
    Examples:
      tao-daemon buffer redrive --dry-run
      tao-daemon buffer redrive --code too_large --since 2d
    """
    from tao_daemon.app.operations.redriving import Wanted, preview_redrive
    from tao_daemon.app.operations.redriving import redrive as act

    wanted = Wanted(code, since, limit)
    with _files(), progress_bar() as progress:
        config = read_config(config_path, secrets_of=("kafka",))
        work = (preview_redrive if dry_run else act)(config, wanted, time.time, progress)
        found = {**asyncio.run(work), "dry_run": dry_run}
    tell(found, as_json, buffer_view.show_redrive)


@command.command()
@config_option
@json_option
@click.argument("directory", type=_NEW_PATH)
def backup(config_path: Path, as_json: bool, directory: Path) -> None:
    """Write everything a restore needs into the new DIRECTORY.

    Buffer, journal, rounds, adapters, routes and tokens (as digests), with a SHA-256 of every file. DIRECTORY appears
    whole or not at all, and only its owner may read it: it holds prompts. The local administrator's token is left out.

    \b
    Example:
      tao-daemon buffer backup /backups/tao-2026-11-23
    """
    from tao_daemon.app.operations.backups import back_up

    with _files(), progress_bar() as progress:
        found = back_up(read_config(config_path), directory, time.time, progress)
    tell(found, as_json, buffer_view.show_backup)


@command.command()
@config_option
@json_option
@reason_option
@click.option("--force", is_flag=True, help="Also when data_dir is not empty: what is there is moved aside.")
@click.argument("directory", type=_DIRECTORY)
def restore(config_path: Path, as_json: bool, reason: str, force: bool, directory: Path) -> None:
    """Put data_dir back to what the backup in DIRECTORY holds.

    Every digest, the journal's chain and the buffer are checked before anything is moved. What was there is kept as
    data_dir.before-TIME. At its next start the daemon reads Kafka from where the backup was: what came since is read
    again, and nothing is buffered twice.

    \b
    Examples:
      tao-daemon buffer restore /backups/tao-2026-11-23
      tao-daemon buffer restore --force --reason "disk failure" /backups/tao-2026-11-23
    """
    from tao_daemon.app.operations.restoring import restore as act

    who, why = actor(), reason or NO_REASON
    with _files(), progress_bar() as progress:
        found = act(read_config(config_path), directory, time.time, progress, replace=force, actor=who, reason=why)
    tell(found, as_json, buffer_view.show_restore)


def _erasure_request(chosen: dict[str, str | None], reason: str) -> ErasureRequest:
    from tao_daemon.app.operations.erasing import ErasureRequest
    from tao_daemon.buffer.erasing import SelectBy, Selector

    given = [(name, value) for name, value in chosen.items() if value is not None]
    if len(given) != 1:
        raise click.UsageError("give one of --subject, --tenant, --conversation and --prompt-id")
    name, value = given[0]
    try:
        selector = Selector(SelectBy("id" if name == "prompt_id" else name), value)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if value.casefold() in reason.casefold():
        given_by = f"--{name.replace('_', '-')}"
        raise click.UsageError(
            f"--reason contains the value of {given_by}, and the audit log keeps it for good; name a ticket instead"
        )
    return ErasureRequest(selector, actor(), reason or NO_REASON)


def _confirm(found: dict[str, Any]) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"{found['prompts']} prompts would be erased for good; --yes says that you want that")
    buffer_view.show_erasure(found)
    click.confirm(f"Erase {found['prompts']} prompts for good?", abort=True, err=True)


@contextmanager
def _files() -> Iterator[None]:
    """What the file system refuses, in one line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TaoError(f"{error.filename or 'a file'}: {error.strerror or type(error).__name__}") from None
