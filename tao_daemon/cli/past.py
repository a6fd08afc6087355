"""The past, asked of the daemon, or read from its data_dir while it is down: the same documents either way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tao_daemon.cli.client import ControlClient, DaemonUnreachable
from tao_daemon.domain.errors import ArchiveError

if TYPE_CHECKING:
    from tao_daemon.config import Config

_PAGE = 500


def past(client: ControlClient, path: str, offline: Callable[[PastOnDisk], Any], **query: Any) -> Any:
    """What GET `path` answers; with the daemon down, what `offline` reads."""
    try:
        return client.get(path, **query)
    except DaemonUnreachable:
        if not client.is_local or not client.config.daemon.data_dir.is_dir():
            raise
    click.echo("the daemon is down: reading its data_dir", err=True)
    return offline(PastOnDisk(client.config))


class PastOnDisk:
    """What the daemon left. Changes nothing."""

    def __init__(self, config: Config) -> None:
        from tao_daemon.registry.round_archive import RoundArchive

        self._config = config
        self._archive = RoundArchive(config.daemon.data_dir / "rounds")

    def rounds(self, limit: int) -> dict[str, Any]:
        """Reports of the newest rounds, oldest first."""
        return {"rounds": self._archive.reports(limit=limit)}

    def round(self, number: int) -> dict[str, Any]:
        """Raises ArchiveError when there is no such round."""
        from tao_daemon.control.explanation import explain

        found = self._report(number)
        return {**found, "explanation": explain(found)}

    def rewards(self, number: int) -> dict[str, Any]:
        from tao_daemon.control.insight import reward_distribution

        return reward_distribution(*self._archive.rewards(number))

    def comparison(self, left: int, right: int) -> dict[str, Any]:
        from tao_daemon.control.insight import compare

        return compare(self._report(left), self._report(right))

    def rollouts(self, limit: int) -> dict[str, Any]:
        """Every rollout with its steps, the latest first."""
        from tao_daemon.app.paths import journal_path
        from tao_daemon.control.history import RolloutHistory
        from tao_daemon.registry.journal_reader import ReadOnlyJournal

        history, journal = RolloutHistory(), ReadOnlyJournal(journal_path(self._config))
        while page := journal.page(history.seq, _PAGE):
            for entry in page:
                history.add(entry)
        return {"rollouts": history.latest(limit)}

    def _report(self, number: int) -> dict[str, Any]:
        if found := self._archive.report(number):
            return found
        raise ArchiveError(f"there is no round {number}; see `tao-daemon round list`")
