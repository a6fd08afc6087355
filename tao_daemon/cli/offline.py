"""What the command line does while the daemon is down: one journaled event, under the lock of data_dir."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from tao_daemon.cli.options import actor

if TYPE_CHECKING:
    from tao_daemon.config import Config
    from tao_daemon.control.tokens import TokenFile
    from tao_daemon.daemon.state import Transition
    from tao_daemon.domain.events import Event
    from tao_daemon.registry.journal import Journal


def undo(config: Config, reason: str, to: str | None, key: str) -> dict[str, Any]:
    """The next routes generation, journaled and written to routes.json; gateways on this machine read that file.

    A daemon that undid it under `key` before it went away is answered for, and nothing is done twice.
    """
    from tao_daemon.app.paths import routes_path
    from tao_daemon.control.auth import LOCAL
    from tao_daemon.daemon.routes_board import write_routes
    from tao_daemon.domain.events import UndoRequested

    with _journal(config) as journal:
        if earlier := journal.answered(f"{LOCAL}:{key}"):
            return {"note": earlier.note, "refused": earlier.refused, "seq": earlier.seq, "replayed": True}
        transition = _apply(config, journal, UndoRequested(actor(), reason, to))
        write_routes(routes_path(config), transition.state.routes)
        last = journal.last()
    return {
        "note": transition.note,
        "refused": transition.refused,
        "seq": last.seq if last else None,
        "replayed": False,
    }


def create_token(config: Config, name: str, scopes: tuple[str, ...], days: float | None, reason: str) -> dict[str, Any]:
    """A token that the daemon knows from its next start; `id` and `token`."""
    from tao_daemon.control.scopes import Scope
    from tao_daemon.domain.events import TokenIssued

    with _journal(config) as journal:
        now, tokens = time.time(), _tokens(config)
        expires_at = now + days * 86_400 if days is not None else None
        issued, secret = tokens.prepare(name, [Scope(scope) for scope in scopes], expires_at, now)
        _apply(config, journal, TokenIssued(issued.id, name, tuple(issued.scopes), expires_at, actor(), reason))
        tokens.add(issued)
    return {"id": issued.id, "token": secret}


def revoke_token(config: Config, token_id: str, reason: str) -> dict[str, Any]:
    """End a token at once, then journal it; what was revoked before stays so."""
    from tao_daemon.domain.events import TokenRevoked

    with _journal(config) as journal:
        tokens = _tokens(config)
        token = tokens.find(token_id)
        tokens.revoke(token_id, time.time())
        transition = _apply(config, journal, TokenRevoked(token_id, token.name, actor(), reason))
    return {"note": transition.note, "refused": transition.refused}


def list_tokens(config: Config) -> list[dict[str, Any]]:
    """Every token there was, without secrets."""
    return [token.to_json() for token in _tokens(config).list()]


def _tokens(config: Config) -> TokenFile:
    from tao_daemon.control.tokens import TokenFile

    return TokenFile(config.daemon.data_dir)


@contextmanager
def _journal(config: Config) -> Iterator[Journal]:
    """The journal, with data_dir held; raises InstanceError when a daemon has it."""
    from tao_daemon.app.paths import journal_path
    from tao_daemon.daemon.instance import sole_owner
    from tao_daemon.registry.journal import Journal

    with sole_owner(config.daemon.data_dir), closing(Journal(journal_path(config))) as journal:
        yield journal


def _apply(config: Config, journal: Journal, event: Event) -> Transition:
    from tao_daemon.app.settings import policy_of
    from tao_daemon.daemon.supervisor import apply_event, last_state

    return apply_event(journal, last_state(journal), event, policy_of(config), time.time())
