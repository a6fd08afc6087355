"""The control API from the command line: one short request, one deadline, errors with a remedy."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from tao_daemon.cli.exits import UNREACHABLE
from tao_daemon.config import Config
from tao_daemon.control.auth import read_token
from tao_daemon.domain.errors import TaoError

_TIMEOUT_SECONDS = 15.0
_REFUSED_STATUS = 409


class DaemonUnreachable(TaoError):
    """Nobody answers at the control address."""

    exit_code = UNREACHABLE


class ControlClient:
    """Speaks to the daemon of a config file."""

    def __init__(self, config: Config) -> None:
        self._base = f"http://{config.control.host}:{config.control.port}"
        self._data_dir = config.daemon.data_dir

    def get(self, path: str) -> Any:
        return self._ask(urllib.request.Request(self._base + path))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Change something. Reads the token of data_dir. A refusal (409) is an answer, not an error."""
        headers = {"Authorization": f"Bearer {read_token(self._data_dir)}", "Content-Type": "application/json"}
        return self._ask(urllib.request.Request(self._base + path, json.dumps(body).encode(), headers, method="POST"))

    def _ask(self, request: urllib.request.Request) -> Any:
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code == _REFUSED_STATUS:
                return json.load(error)
            raise TaoError(f"{request.selector} was refused ({error.code}): {_message(error)}") from None
        except (urllib.error.URLError, TimeoutError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise DaemonUnreachable(
                f"the daemon does not answer at {self._base} ({reason}); is it running, and is [control] in your "
                "config the one it was started with?"
            ) from None


def _message(error: urllib.error.HTTPError) -> str:
    try:
        problem = json.load(error)["error"]
        return " ".join(part for part in (problem["message"], problem["remedy"]) if part)
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
