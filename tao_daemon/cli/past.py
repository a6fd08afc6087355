"""The past, asked of the daemon, or read from its data_dir while it is down: the same documents either way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tao_daemon.cli.client import ControlClient, DaemonUnreachable
from tao_daemon.domain.errors import ArchiveError

if TYPE_CHECKING:
    from tao_daemon.config import Config
    from tao_daemon.control.past import Past


def past(client: ControlClient, path: str, offline: Callable[[Past], Any], **query: Any) -> Any:
    """What GET `path` answers; with the daemon down, what `offline` reads."""
    try:
        return client.get(path, **query)
    except DaemonUnreachable:
        if not client.is_local or not client.config.daemon.data_dir.is_dir():
            raise
    click.echo("the daemon is down: reading its data_dir", err=True)
    return _read(client.config, offline)


def _read(config: Config, offline: Callable[[Past], Any]) -> Any:
    from tao_daemon.app.paths import journal_path, rounds_path
    from tao_daemon.control.past import NoSuchRound, Past
    from tao_daemon.registry.journal_reader import ReadOnlyJournal
    from tao_daemon.registry.round_archive import RoundArchive

    disk = Past(RoundArchive(rounds_path(config)), ReadOnlyJournal(journal_path(config)))
    try:
        return offline(disk)
    except NoSuchRound as error:
        raise ArchiveError(f"{error}; see `tao-daemon round list`") from None
