"""Named tokens: `data_dir/tokens.json`, mode 0600, secrets kept as SHA-256 only.

A secret has 256 random bits, so a plain digest cannot be searched and needs no salt. What is revoked or expired stays
listed. The file has one writer: the daemon, or a command that owns data_dir while the daemon is down.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tao_daemon.clients.storage import atomic_write_json
from tao_daemon.control.scopes import NAME_PATTERN, Scope
from tao_daemon.domain.errors import ConfigError, TaoError
from tao_daemon.domain.events import TokenIssued

FILE_NAME = "tokens.json"
_RESERVED = ("daemon", "local")
_VERSION = 1
_DAY_SECONDS = 86_400.0


class TokenError(TaoError):
    """A token cannot be issued or revoked as asked."""


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """What is known of a token, without its secret. Times are Unix seconds."""

    id: str
    name: str
    """Whose it is: the journal's actor of what is done with it."""
    scopes: tuple[Scope, ...]
    sha256: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    def is_valid(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def to_json(self) -> dict[str, Any]:
        """What may be shown: everything but the digest."""
        return {
            "id": self.id,
            "name": self.name,
            "scopes": [scope.value for scope in self.scopes],
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "revoked_at": self.revoked_at,
        }


class TokenFile:
    """The tokens of a data directory. Reads the file again when it changed."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE_NAME
        self._stamp: tuple[int, int] | None = None
        self._tokens: tuple[IssuedToken, ...] = ()

    def list(self) -> tuple[IssuedToken, ...]:
        """Every token there was, oldest first. Raises ConfigError when the file is damaged."""
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if stamp != self._stamp:
                self._tokens = _parsed(json.loads(self._path.read_bytes()))
                self._stamp = stamp
        except FileNotFoundError:
            self._tokens, self._stamp = (), None
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ConfigError(
                f"cannot read the tokens in {self._path} ({type(error).__name__}); restore the file from a backup, or "
                "remove it and issue new tokens"
            ) from None
        return self._tokens

    def prepare(
        self, name: str, scopes: Iterable[Scope], expires_at: float | None, now: float
    ) -> tuple[IssuedToken, str]:
        """A new token and its secret, not stored yet. Raises TokenError."""
        if not re.fullmatch(NAME_PATTERN, name) or name in _RESERVED:
            raise TokenError(
                f"{name!r} cannot name a token: use 1-64 letters, digits or . _ @ -, and not {', '.join(_RESERVED)}"
            )
        if any(token.name == name and token.is_valid(now) for token in self.list()):
            raise TokenError(f"there is a valid token named {name!r}; revoke it first, or choose another name")
        wanted = tuple(sorted(set(scopes), key=list(Scope).index))
        if not wanted:
            raise TokenError("a token needs at least one scope: " + ", ".join(Scope))
        if expires_at is not None and expires_at <= now:
            raise TokenError("a token cannot expire before it is issued; give a number of days above 0")
        secret = "tao_" + secrets.token_urlsafe(32)
        return IssuedToken(secrets.token_hex(4), name, wanted, _digest(secret), now, expires_at), secret

    def draft(
        self, name: str, scopes: Iterable[Scope], days: float | None, now: float, actor: str, reason: str
    ) -> tuple[TokenIssued, IssuedToken, str]:
        """As `prepare`, valid for `days` or until revoked, and what is to be journaled before the token is added."""
        expires_at = now + days * _DAY_SECONDS if days is not None else None
        token, secret = self.prepare(name, scopes, expires_at, now)
        values = tuple(scope.value for scope in token.scopes)
        return TokenIssued(token.id, token.name, values, expires_at, actor, reason), token, secret

    def add(self, token: IssuedToken) -> None:
        """Valid from now on. Raises ConfigError when it cannot be written."""
        self._write((*self.list(), token))

    def revoke(self, token_id: str, now: float) -> None:
        """End a token at once. Idempotent. Raises ConfigError when it cannot be written: then it is still valid."""
        self._write(
            tuple(
                replace(token, revoked_at=now) if token.id == token_id and token.revoked_at is None else token
                for token in self.list()
            )
        )

    def find(self, token_id: str) -> IssuedToken:
        """Raises TokenError naming the id."""
        for token in self.list():
            if token.id == token_id:
                return token
        raise TokenError(f"there is no token {token_id!r}; see `tao-daemon token list`")

    def holder(self, secret: str, now: float) -> IssuedToken | None:
        """The valid token with that secret."""
        digest = _digest(secret)
        found = None
        for token in self.list():
            if hmac.compare_digest(token.sha256, digest) and token.is_valid(now):
                found = token
        return found

    def _write(self, tokens: tuple[IssuedToken, ...]) -> None:
        body = {"version": _VERSION, "tokens": [{**token.to_json(), "sha256": token.sha256} for token in tokens]}
        try:
            atomic_write_json(self._path, body, mode=0o600)
        except OSError as error:
            raise ConfigError(
                f"cannot write the tokens to {self._path} ({error.strerror}), every token is as it was; make room, or "
                "make the directory writable, and ask again"
            ) from None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _parsed(body: Mapping[str, Any]) -> tuple[IssuedToken, ...]:
    if body["version"] != _VERSION:
        raise ValueError("another version")
    return tuple(
        IssuedToken(
            id=str(item["id"]),
            name=str(item["name"]),
            scopes=tuple(Scope(scope) for scope in item["scopes"]),
            sha256=_hexadecimal(item["sha256"]),
            created_at=_time(item["created_at"]),
            expires_at=None if item["expires_at"] is None else _time(item["expires_at"]),
            revoked_at=None if item["revoked_at"] is None else _time(item["revoked_at"]),
        )
        for item in body["tokens"]
    )


def _hexadecimal(value: str) -> str:
    bytes.fromhex(value)
    return value


def _time(value: float) -> float:
    found = float(value)
    if not math.isfinite(found):
        raise ValueError("not a time")
    return found
