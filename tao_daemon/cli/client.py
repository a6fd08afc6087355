"""The control API from the command line: one short request, one deadline, errors with a remedy.

Proxies of the environment are not used: the API is loopback or reached over an address that the user names. A verb
carries an Idempotency-Key; when the connection is lost before the answer, it is sent once more under the same key, so
that it happens once.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlencode, urlsplit

import click

from tao_daemon.cli.exits import NO_PERMISSION, UNREACHABLE
from tao_daemon.domain.errors import ConfigError, TaoError

if TYPE_CHECKING:
    from tao_daemon.config import Config

TIMEOUT_SECONDS = 15.0
STREAM_SILENCE_SECONDS = 40.0
"""A stream that says nothing for so long, not even its comment every 15 s, is lost."""
PATIENCE_SECONDS = 20.0
"""How long a daemon that went away before it answered is waited for."""
_RETRY_PAUSE_SECONDS = 0.5
_UNAUTHORIZED, _FORBIDDEN, _REFUSED, _TROUBLE = 401, 403, 409, 500
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}


class DaemonUnreachable(TaoError):
    """Nobody answers at the control address."""

    exit_code = UNREACHABLE


class AnswerLost(DaemonUnreachable):
    """The daemon was asked, and went away before it answered: it may have acted."""


class AnswerLate(AnswerLost):
    """… or did not answer in time, and may still act."""


class DaemonTroubled(TaoError):
    """The daemon answered that it cannot now (5xx)."""


class NoPermission(TaoError):
    """The token is missing, not valid, or lacks the scope."""

    exit_code = NO_PERMISSION


class ControlClient:
    """Speaks to the daemon of a config file, or to one at `url` with a token given by the user.

    The local administrator's token of data_dir is read when it is needed, and never sent to a `url`.
    """

    def __init__(self, config: Config | None = None, *, url: str | None = None, token: str | None = None) -> None:
        self._config = config
        self._token = token
        self._address = _split(url) if url else _address(config)

    @property
    def url(self) -> str:
        return self._address.geturl()

    @property
    def config(self) -> Config:
        """The configuration, for what works on the daemon's machine only. Raises ConfigError with --url."""
        if self._config is None:
            raise ConfigError("this works on the daemon's own machine, with --config and without --url")
        return self._config

    @property
    def is_local(self) -> bool:
        return self._config is not None

    @property
    def is_administrator(self) -> bool:
        """Whether the local administrator's token is used, for lack of another."""
        return self.is_local and not self._token

    @property
    def token(self) -> str | None:
        """What is sent as Bearer; None when there is none that could be read."""
        return self._token or self._local_token()[0]

    def get(self, path: str, *, timeout: float = TIMEOUT_SECONDS, **query: Any) -> Any:
        """What the daemon answers. `query` leaves out what is None."""
        return self._ask("GET", path + _query(query), timeout=timeout)

    def post(
        self, path: str, body: Mapping[str, Any], *, key: str | None = None, patience: float = PATIENCE_SECONDS
    ) -> Any:
        """Change something. A refusal (409) is an answer, not an error.

        With a `key` the daemon does it once, so that it is sent once more when the connection is lost and somebody
        listens again within `patience` seconds.
        """
        return self._change(path, json.dumps(body).encode(), key, patience)

    def delete(self, path: str, **query: Any) -> Any:
        return self._ask("DELETE", path + _query(query))

    def stream(self, path: str, last_event_id: int | None = None) -> Iterator[str]:
        """The lines of a stream, without their ends. Ends or raises DaemonUnreachable when the daemon goes away."""
        headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
        with closing(self._connect(STREAM_SILENCE_SECONDS)) as connection:
            response = self._send(connection, "GET", path, None, {"Accept": "text/event-stream", **headers})
            if response.status != http.client.OK:
                self._raise_for(response.status, self._body(response), path)
            try:
                while line := response.readline():
                    yield line.decode("utf-8", "replace").rstrip("\r\n")
            except (OSError, http.client.HTTPException) as error:
                raise DaemonUnreachable(f"the stream of {self.url} was lost: {_why(error)}") from None

    def _change(self, path: str, body: bytes, key: str | None, patience: float) -> Any:
        if key is None:
            return self._ask("POST", path, body)
        headers = {"Idempotency-Key": key}
        try:
            return self._ask("POST", path, body, headers)
        except AnswerLate:
            raise
        except AnswerLost as lost:
            click.echo("the daemon went away before it answered; asking again under the same key", err=True)
            return self._ask_again(lost, path, body, headers, patience)

    def _ask_again(self, lost: AnswerLost, path: str, body: bytes, headers: Mapping[str, str], patience: float) -> Any:
        """Once more under the same key, as soon as somebody listens; raises `lost` when nobody does."""
        until = time.monotonic() + patience
        while True:
            time.sleep(_RETRY_PAUSE_SECONDS)
            try:
                return self._ask("POST", path, body, headers)
            except AnswerLost:
                raise
            except DaemonUnreachable:
                if time.monotonic() > until:
                    raise lost from None

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> Any:
        with closing(self._connect(timeout)) as connection:
            response = self._send(connection, method, path, body, headers or {})
            found = self._body(response)
        if response.status == _REFUSED and isinstance(found, dict) and "refused" in found:
            return found
        if response.status >= http.client.BAD_REQUEST:
            self._raise_for(response.status, found, path)
        return found

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        host, port = self._address.hostname or "", self._address.port
        secure = self._address.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(host, port, timeout=timeout)
        try:
            connection.connect()
        except OSError as error:
            where = "is it running, and is [control] in your config the one it was started with?"
            if not self.is_local:
                where = "is the address right, and may this machine reach it?"
            raise DaemonUnreachable(f"the daemon does not answer at {self.url} ({_why(error)}); {where}") from None
        return connection

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        sent = {"Accept": "application/json", **headers}
        if token := self.token:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None:
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, self._address.path + path, body, sent)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None

    def _body(self, response: http.client.HTTPResponse) -> Any:
        try:
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None
        try:
            return json.loads(raw) if raw else None
        except ValueError:
            raise DaemonUnreachable(
                f"what answers at {self.url} (status {response.status}) is not tao-daemon's control API; check the port"
            ) from None

    def _lost(self, error: Exception) -> AnswerLost:
        if isinstance(error, TimeoutError):
            return AnswerLate(
                f"the daemon at {self.url} did not answer in time; it may still act: see `tao-daemon audit show`"
            )
        return AnswerLost(
            f"the daemon at {self.url} went away before it answered ({_why(error)}); "
            "`tao-daemon audit show` tells whether it acted"
        )

    def _raise_for(self, status: int, body: Any, path: str) -> None:
        message = _message(body) or f"status {status}"
        if status in (_UNAUTHORIZED, _FORBIDDEN):
            raise NoPermission(" ".join(part for part in (message, self._why_no_token()) if part))
        if status >= _TROUBLE:
            raise DaemonTroubled(f"the daemon cannot answer {path} now ({status}): {message}")
        raise TaoError(message)

    def _why_no_token(self) -> str:
        if self._token:
            return ""
        if not self.is_local:
            return "No token was given: use --token env:NAME or file:PATH, or set TAO_TOKEN."
        return self._local_token()[1]

    def _local_token(self) -> tuple[str | None, str]:
        """The token of data_dir, or None and why."""
        if self._config is None:
            return None, ""
        from tao_daemon.control.auth import read_token

        try:
            return read_token(self._config.daemon.data_dir), ""
        except ConfigError as error:
            return None, f"{error}."


def _address(config: Config | None) -> SplitResult:
    if config is None:
        raise ConfigError("neither a config nor a url names the daemon; pass --config FILE or --url URL")
    host = _ANY_ADDRESS.get(config.control.host, config.control.host)
    return urlsplit(f"http://{f'[{host}]' if ':' in host else host}:{config.control.port}")


def _split(url: str) -> SplitResult:
    """A base URL without a slash at its end. Raises ConfigError."""
    try:
        found = urlsplit(url.rstrip("/"))
        usable = found.scheme in ("http", "https") and bool(found.hostname) and found.port != 0
    except ValueError:
        usable = False
    if not usable or found.query or found.fragment or found.username:
        raise ConfigError(f"{url!r} is not the address of a control API; write it like https://tao.example:8090")
    return found


def _query(values: Mapping[str, Any]) -> str:
    given = {name: value for name, value in values.items() if value is not None}
    return "?" + urlencode(given) if given else ""


def _message(body: Any) -> str:
    try:
        problem = body["error"]
        message, remedy = str(problem["message"]), str(problem["remedy"])
    except (KeyError, TypeError):
        return ""
    return f"{message}; {remedy}" if remedy else message


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
