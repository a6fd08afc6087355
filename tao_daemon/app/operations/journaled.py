"""One journaled event on a data directory whose daemon is down, and what goes with it: an undo, a token.

sole owner → journal → event applied → routes or tokens written
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from tao_daemon.app.paths import existing_journal, journal_path, routes_path
from tao_daemon.app.settings import policy_of
from tao_daemon.config import Config
from tao_daemon.control.auth import LOCAL
from tao_daemon.control.scopes import Scope
from tao_daemon.control.tokens import TokenFile
from tao_daemon.daemon.instance import sole_owner
from tao_daemon.daemon.routes_board import write_routes
from tao_daemon.daemon.state import Transition
from tao_daemon.daemon.supervisor import apply_event, last_state
from tao_daemon.domain.events import Event, TokenRevoked, UndoRequested
from tao_daemon.domain.ports import Clock
from tao_daemon.registry.journal import Journal


def undo(config: Config, event: UndoRequested, key: str, clock: Clock) -> dict[str, Any]:
    """The next routes generation, journaled and written to routes.json; gateways on this machine read that file.

    A daemon that undid it under `key` before it went away is answered for, and nothing is done twice. Raises
    JournalError where no daemon has been.
    """
    existing_journal(config)
    with _journal(config) as journal:
        if earlier := journal.answered(f"{LOCAL}:{key}"):
            return {"note": earlier.note, "refused": earlier.refused, "seq": earlier.seq, "replayed": True}
        transition = _apply(config, journal, event, clock)
        write_routes(routes_path(config), transition.state.routes)
        last = journal.last()
    return {
        "note": transition.note,
        "refused": transition.refused,
        "seq": last.seq if last else None,
        "replayed": False,
    }


def create_token(
    config: Config, name: str, scopes: Sequence[str], days: float | None, clock: Clock, *, actor: str, reason: str
) -> dict[str, Any]:
    """A token that the daemon knows from its next start; `id` and `token`. Raises TokenError."""
    with _journal(config) as journal:
        tokens = TokenFile(config.daemon.data_dir)
        issued, token, secret = tokens.draft(name, [Scope(each) for each in scopes], days, clock(), actor, reason)
        _apply(config, journal, issued, clock)
        tokens.add(token)
    return {"id": token.id, "token": secret}


def revoke_token(config: Config, token_id: str, clock: Clock, *, actor: str, reason: str) -> dict[str, Any]:
    """End a token at once, then journal it; what was revoked before stays so. Raises TokenError."""
    with _journal(config) as journal:
        tokens = TokenFile(config.daemon.data_dir)
        token = tokens.find(token_id)
        tokens.revoke(token_id, clock())
        transition = _apply(config, journal, TokenRevoked(token_id, token.name, actor, reason), clock)
    return {"note": transition.note, "refused": transition.refused}


def list_tokens(config: Config) -> list[dict[str, Any]]:
    """Every token there was, without secrets."""
    return [token.to_json() for token in TokenFile(config.daemon.data_dir).list()]


@contextmanager
def _journal(config: Config) -> Iterator[Journal]:
    """The journal, with data_dir held; raises InstanceError when a daemon has it."""
    with sole_owner(config.daemon.data_dir), closing(Journal(journal_path(config))) as journal:
        yield journal


def _apply(config: Config, journal: Journal, event: Event, clock: Clock) -> Transition:
    return apply_event(journal, last_state(journal), event, policy_of(config), clock())
