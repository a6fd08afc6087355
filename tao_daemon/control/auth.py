"""Who asks: the local administrator's token of data_dir, or a named token with its scopes.

Who may read data_dir may change things: `control.token` (mode 0600) is created at the first start and allows
everything. Secrets are compared in constant time.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from tao_daemon.clients.storage import atomic_write_bytes
from tao_daemon.control.scopes import Scope, effective
from tao_daemon.control.tokens import TokenFile
from tao_daemon.domain.errors import ConfigError
from tao_daemon.domain.ports import Clock

FILE_NAME = "control.token"
LOCAL = "local"
"""The name of whoever holds the local token and says no name."""


def ensure_token(data_dir: Path) -> str:
    """The local token of this data directory, created when there is none. Only for who owns the directory."""
    path = data_dir / FILE_NAME
    # A crash or a full disk may leave a file that nobody could ever log in with.
    if path.exists() and path.stat().st_size:
        return read_token(data_dir)
    token = secrets.token_urlsafe(32)
    atomic_write_bytes(path, token.encode(), mode=0o600)
    return token


def read_token(data_dir: Path) -> str:
    """The local token, for a client on the same machine. Raises ConfigError naming the file."""
    path = data_dir / FILE_NAME
    try:
        token = path.read_text(encoding="ascii").strip()
    except ValueError:
        token = ""
    except OSError as error:
        raise ConfigError(
            f"cannot read the control token {path}: {error.strerror}; run as the daemon's user, "
            "with the daemon's --config, or give a token of your own with --token"
        ) from None
    if not token:
        raise ConfigError(f"there is no token in {path}; remove the file and restart the daemon, which makes a new one")
    return token


@dataclass(frozen=True, slots=True)
class Identity:
    """Whoever sent a request."""

    name: str
    scopes: frozenset[Scope]
    """With all they include."""

    def actor(self, claimed: str | None) -> str:
        """For the journal. Only the local token may speak for others; a named one is named itself, first."""
        if self.name == LOCAL:
            return claimed or LOCAL
        return f"{self.name} ({claimed})" if claimed and claimed != self.name else self.name


class Authenticator:
    """Knows the tokens of one data directory."""

    def __init__(self, local_token: str, tokens: TokenFile, clock: Clock) -> None:
        self._local = local_token
        self._tokens = tokens
        self._clock = clock

    def identify(self, header: str | None) -> Identity | None:
        """Whose Authorization header this is; None without a valid token."""
        scheme, _, given = (header or "").partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            return None
        if hmac.compare_digest(given.encode(), self._local.encode()):
            return Identity(LOCAL, effective([Scope.ADMIN]))
        token = self._tokens.holder(given, self._clock())
        return Identity(token.name, effective(token.scopes)) if token else None
