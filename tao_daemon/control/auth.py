"""The control token: who may read data_dir may change things, nobody else.

Created at the first start with mode 0600; compared in constant time.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from tao_daemon.domain.errors import ConfigError

FILE_NAME = "control.token"


def ensure_token(data_dir: Path) -> str:
    """The token of this data directory, created when there is none."""
    path = data_dir / FILE_NAME
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_token(data_dir)
    with os.fdopen(handle, "w") as file:
        token = secrets.token_urlsafe(32)
        file.write(token)
    return token


def read_token(data_dir: Path) -> str:
    """The token, for a client on the same machine. Raises ConfigError naming the file."""
    path = data_dir / FILE_NAME
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError(
            f"cannot read the control token {path}: {error.strerror}; run as the daemon's user, "
            "with the daemon's --config"
        ) from None


def is_authorized(header: str | None, token: str) -> bool:
    """Whether an Authorization header carries the token."""
    scheme, _, given = (header or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
