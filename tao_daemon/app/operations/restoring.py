"""Puts data_dir back to what a backup holds.

Invariants: everything is copied and proved before anything is moved; what was there is moved aside, never deleted;
data_dir is the old one or the restored one at any moment, unless it is a mount point. What was erased since the backup
is erased from what comes back, and who may log in stays as it is, as far as the old data_dir still knows of it.

manifest → copy beside data_dir → digests, journal chain, buffer → erased again → journal entry → exchange → old aside
"""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tao_daemon.app.operations import Progress
from tao_daemon.app.operations.backup_manifest import NAME, BackupManifest, check_files, describe, read_manifest
from tao_daemon.app.operations.erasing import ErasureRequest, forget_again
from tao_daemon.app.paths import buffer_path, journal_path, routes_path
from tao_daemon.app.settings import policy_of
from tao_daemon.buffer.database import open_database
from tao_daemon.buffer.erasing import forgotten_ids
from tao_daemon.clients.exchange import exchange
from tao_daemon.clients.failpoints import reach
from tao_daemon.clients.storage import UNFINISHED, publishing, require_room
from tao_daemon.config import Config
from tao_daemon.control.auth import FILE_NAME as TOKEN
from tao_daemon.control.tokens import FILE_NAME as TOKENS
from tao_daemon.control.tokens import TokenFile
from tao_daemon.daemon.instance import sole_owner
from tao_daemon.daemon.routes_board import write_routes
from tao_daemon.daemon.supervisor import apply_event, last_state
from tao_daemon.domain.errors import ConfigError, InstanceError, JournalError, PromptStoreError, TaoError
from tao_daemon.domain.events import BackupRestored
from tao_daemon.domain.ports import Clock
from tao_daemon.registry.journal import Journal

_NOBODYS = ("daemon.lock", TOKEN)
"""What a data_dir that holds nothing may have."""


def restore(
    config: Config, source: Path, clock: Clock, progress: Progress, *, replace: bool, actor: str, reason: str
) -> dict[str, Any]:
    """Restore the backup `source`; with `replace` also over a data_dir that is not empty. Raises TaoError."""
    data_dir, source = config.daemon.data_dir.absolute(), source.absolute()
    manifest = read_manifest(source)
    with sole_owner(data_dir):
        held = sorted(path.name for path in data_dir.iterdir() if not _is_nobodys(path.name))
        if held and not replace:
            raise TaoError(
                f"{data_dir} is not empty ({', '.join(held[:3])}{', …' if len(held) > 3 else ''}); "
                "--force moves it aside, and deletes nothing"
            )
        stamp = f"{datetime.fromtimestamp(clock(), UTC):%Y%m%dT%H%M%SZ}"
        mounted = os.path.ismount(data_dir)
        aside = data_dir / f"before-{stamp}" if mounted else data_dir.with_name(f"{data_dir.name}.before-{stamp}")
        if aside.exists():
            raise TaoError(f"{aside} is there already, from a restore of this second; run the command again")
        incoming = (
            data_dir / f"{UNFINISHED}restore" if mounted else data_dir.with_name(f"{data_dir.name}.incoming-{stamp}")
        )
        _clear(incoming)
        require_room(data_dir.parent if not mounted else data_dir, _bytes(manifest), f"restoring {source}")
        with publishing(incoming) as staged:
            again = _stage(config, source, manifest, staged, clock, progress, actor, reason)
            reach("restore.staged")
        if mounted:
            _swap_entries(incoming, data_dir, aside)
        else:
            _swap(incoming, data_dir, aside, bool(held))
    progress("done", 4, 4)
    return {
        "backup": str(source),
        "data_dir": str(data_dir),
        "moved_aside": str(aside) if aside and held else None,
        "prompts": manifest.prompts - again,
        "forgotten_again": again,
        "journal": {"seq": manifest.journal[0], "hash": manifest.journal[1]} if manifest.journal else None,
        "taken_at": manifest.taken_at,
    }


def _stage(
    config: Config,
    source: Path,
    manifest: BackupManifest,
    staged: Path,
    clock: Clock,
    progress: Progress,
    actor: str,
    reason: str,
) -> int:
    """Everything that will be data_dir, proved; how many prompts had to be erased again."""
    progress("copying", 0, 4)
    staged.chmod(config.daemon.data_dir.stat().st_mode & 0o777)
    shutil.copytree(source, staged, dirs_exist_ok=True, ignore=lambda where, names: {NAME} & set(names))
    progress("digests", 1, 4)
    check_files(source, manifest.files, describe(staged))
    progress("journal and buffer", 2, 4)
    there = config.model_copy(update={"daemon": config.daemon.model_copy(update={"data_dir": staged})})
    _prove(there, manifest)
    request = ErasureRequest(None, actor, "erased after the backup was taken")
    again = forget_again(there, _erased_here(config), request, clock)
    progress("moving", 3, 4)
    _note(there, manifest, clock, actor, reason)
    _keep_tokens(config.daemon.data_dir, staged)
    return again


def _keep_tokens(data_dir: Path, staged: Path) -> None:
    """A backup brings back no token that was revoked after it was taken. A damaged file is not kept."""
    try:
        known = TokenFile(data_dir).list()
    except ConfigError:
        known = ()
    for name in (TOKEN, TOKENS) if known else (TOKEN,):
        if (data_dir / name).exists():
            shutil.copy2(data_dir / name, staged / name)


def _prove(there: Config, manifest: BackupManifest) -> None:
    """The journal's chain is whole and ends where the manifest says; the buffer opens. Raises TaoError."""
    open_database(buffer_path(there)).close()
    if manifest.journal is None:
        return
    with closing(Journal(journal_path(there))) as journal:
        journal.verify()
        last = journal.last()
    if last is None or (last.seq, last.hash) != manifest.journal:
        raise JournalError(f"the backup's journal does not end at entry {manifest.journal[0]}; use another backup")


def _note(there: Config, manifest: BackupManifest, clock: Clock, actor: str, reason: str) -> None:
    """In the audit log, and in routes that every gateway takes for newer than its own."""
    with closing(Journal(journal_path(there))) as journal:
        event = BackupRestored(manifest.taken_at, int(clock()), actor, reason)
        state = apply_event(journal, last_state(journal), event, policy_of(there), clock()).state
    write_routes(routes_path(there), state.routes)


def _erased_here(config: Config) -> list[str]:
    """What the data_dir that is replaced knows to be erased; nothing where it cannot be read."""
    path = buffer_path(config)
    if not path.exists():
        return []
    try:
        with closing(open_database(path)) as connection:
            return forgotten_ids(connection)
    except (PromptStoreError, InstanceError):
        return []


def _swap(incoming: Path, data_dir: Path, aside: Path, occupied: bool) -> None:
    exchange(incoming, data_dir)
    if occupied:
        incoming.rename(aside)
    else:
        shutil.rmtree(incoming)


def _swap_entries(incoming: Path, data_dir: Path, aside: Path) -> None:
    """A mount point cannot be renamed: its entries are, one after the other. Interrupted, it is to be run again."""
    aside.mkdir()
    for path in sorted(data_dir.iterdir()):
        if path not in (incoming, aside) and path.name != "daemon.lock":
            path.rename(aside / path.name)
    for path in sorted(incoming.iterdir()):
        path.rename(data_dir / path.name)
    incoming.rmdir()


def _is_nobodys(name: str) -> bool:
    return name in _NOBODYS or name.startswith((UNFINISHED, "before-")) or name == "lost+found"


def _clear(incoming: Path) -> None:
    """What an interrupted restore left."""
    for path in (incoming, *incoming.parent.glob(f"{UNFINISHED}{incoming.name.partition('.incoming-')[0]}.incoming-*")):
        shutil.rmtree(path, ignore_errors=True)


def _bytes(manifest: BackupManifest) -> int:
    return sum(each.bytes for each in manifest.files.values())
