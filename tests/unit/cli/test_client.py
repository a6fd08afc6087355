"""The client against a server that misbehaves: real sockets, every fault a user can meet."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tao_daemon.cli.client import (
    AnswerLate,
    AnswerLost,
    ControlClient,
    DaemonTroubled,
    DaemonUnreachable,
    NoPermission,
)
from tao_daemon.cli.exits import NO_PERMISSION, UNREACHABLE
from tao_daemon.cli.looks import looks
from tao_daemon.cli.stream import follow
from tao_daemon.config import parse_config
from tao_daemon.domain.errors import ConfigError, TaoError


def reply(status: int, body: Any) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(raw), raw)


def problem(status: int, message: str, remedy: str = "") -> bytes:
    return reply(status, {"error": {"code": "x", "message": message, "remedy": remedy}})


@dataclass
class Server:
    """Answers each connection with the next of `answers`; b"" hangs up, None never answers."""

    answers: list[bytes | None]
    requests: list[str] = field(default_factory=list)
    url: str = ""
    _socket: socket.socket = field(default_factory=socket.socket)
    _open: list[socket.socket] = field(default_factory=list)

    def start(self) -> None:
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        for each in (self._socket, *self._open):
            each.close()

    def header(self, number: int, name: str) -> str | None:
        for line in self.requests[number].splitlines():
            key, _, value = line.partition(": ")
            if key.lower() == name.lower():
                return value
        return None

    def _serve(self) -> None:
        for answer in self.answers:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.requests.append(_request(connection))
            if answer is None:
                self._open.append(connection)
                continue
            connection.sendall(answer)
            connection.close()
        self._socket.close()


def _request(connection: socket.socket) -> str:
    """One request with its body."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += connection.recv(65_536)
    head, _, body = raw.partition(b"\r\n\r\n")
    lengths = [int(line[16:]) for line in head.lower().splitlines() if line.startswith(b"content-length: ")]
    while len(body) < sum(lengths):
        body += connection.recv(65_536)
    return f"{head.decode()}\r\n\r\n{body.decode()}"


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(*answers: bytes | None) -> Server:
        server = Server(list(answers))
        server.start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def closed_url() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"


Serve = Callable[..., Server]
DONE = {"note": "done", "refused": False, "seq": 4, "replayed": True}


def test_it_sends_the_token_and_the_query(serve: Serve) -> None:
    server = serve(reply(200, {"a": 1}))
    assert ControlClient(url=server.url + "/", token="secret").get("/v1/x", limit=3, before=None) == {"a": 1}
    assert server.requests[0].startswith("GET /v1/x?limit=3 ")
    assert server.header(0, "Authorization") == "Bearer secret"


def test_a_prefix_of_the_address_is_kept(serve: Serve) -> None:
    server = serve(reply(200, {}))
    ControlClient(url=server.url + "/tao/", token="t").get("/v1/x")
    assert server.requests[0].startswith("GET /tao/v1/x ")


def test_nobody_listens(closed_url: str) -> None:
    with pytest.raises(DaemonUnreachable) as raised:
        ControlClient(url=closed_url, token="t").get("/v1/status")
    assert raised.value.exit_code == UNREACHABLE
    assert closed_url in str(raised.value)
    assert not isinstance(raised.value, AnswerLost), "it was never asked"


@pytest.mark.parametrize("status", [401, 403])
def test_no_permission_says_what_is_missing(serve: Serve, status: int) -> None:
    server = serve(problem(status, "this route needs scope operate", "ask an administrator"))
    with pytest.raises(NoPermission, match="needs scope operate; ask an administrator") as raised:
        ControlClient(url=server.url, token="t").post("/v1/rounds", {})
    assert raised.value.exit_code == NO_PERMISSION


def test_without_a_token_it_says_how_to_give_one(serve: Serve) -> None:
    server = serve(problem(401, "no token"))
    with pytest.raises(NoPermission, match="--token env:NAME"):
        ControlClient(url=server.url).get("/v1/status")
    assert server.header(0, "Authorization") is None


def test_the_local_token_is_read_and_goes_nowhere_else(serve: Serve, tmp_path: Any) -> None:
    server = serve(reply(200, {}), reply(200, {}), problem(401, "no token"))
    (tmp_path / "control.token").write_text("local\n")
    port = int(server.url.rpartition(":")[2])
    config = parse_config({"daemon": {"data_dir": str(tmp_path)}, "control": {"host": "0.0.0.0", "port": port}})
    ControlClient(config).get("/")
    assert server.header(0, "Authorization") == "Bearer local"
    ControlClient(config, token="mine").get("/")
    assert server.header(1, "Authorization") == "Bearer mine"
    (tmp_path / "control.token").unlink()
    with pytest.raises(NoPermission, match=r"control\.token"):
        ControlClient(config).get("/")


def test_a_refusal_is_an_answer(serve: Serve) -> None:
    refused = {"note": "nothing to undo", "refused": True, "seq": None}
    server = serve(reply(409, refused))
    assert ControlClient(url=server.url, token="t").post("/v1/rollout/undo", {}, key="k") == refused


def test_other_answers_are_errors_with_their_words(serve: Serve) -> None:
    server = serve(
        problem(404, "no round 9", "list them"), problem(503, "late"), reply(500, b"oops"), reply(200, b"<html>")
    )
    client = ControlClient(url=server.url, token="t")
    with pytest.raises(TaoError, match="no round 9; list them"):
        client.get("/v1/rounds/9")
    with pytest.raises(DaemonTroubled, match="late"):
        client.get("/v1/status")
    for _ in range(2):
        with pytest.raises(DaemonUnreachable, match="not tao-daemon's control API"):
            client.get("/v1/status")


def test_a_lost_answer_is_asked_for_again_under_the_same_key(serve: Serve) -> None:
    server = serve(b"", reply(200, DONE))
    assert ControlClient(url=server.url, token="t").post("/v1/rollout/promote", {"a": 1}, key="k1") == DONE
    assert [server.header(number, "Idempotency-Key") for number in (0, 1)] == ["k1", "k1"]
    assert server.requests[0] == server.requests[1]


def test_it_is_sent_twice_at_most(serve: Serve) -> None:
    server = serve(b"", b"", reply(200, DONE))
    with pytest.raises(AnswerLost, match="audit show"):
        ControlClient(url=server.url, token="t").post("/v1/rollout/promote", {}, key="k")
    assert len(server.requests) == 2


def test_a_cut_answer_is_a_lost_one(serve: Serve) -> None:
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", reply(200, DONE))
    assert ControlClient(url=server.url, token="t").post("/v1/rollout/promote", {}, key="k") == DONE


def test_nobody_listens_again(serve: Serve) -> None:
    server = serve(b"")
    with pytest.raises(AnswerLost, match="audit show"):
        ControlClient(url=server.url, token="t").post("/v1/rollout/undo", {}, key="k", patience=0.6)


def test_without_a_key_it_is_never_sent_again(serve: Serve) -> None:
    server = serve(b"", reply(200, DONE))
    with pytest.raises(AnswerLost):
        ControlClient(url=server.url, token="t").post("/v1/tokens", {})
    assert len(server.requests) == 1


def test_who_is_late_is_not_asked_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tao_daemon.cli.client.TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(ControlClient._ask, "__defaults__", (None, None, 0.2))
    server = serve(None, reply(200, DONE))
    with pytest.raises(AnswerLate, match="may still act"):
        ControlClient(url=server.url, token="t").post("/v1/rollout/undo", {}, key="k")
    assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["localhost:8090", "ftp://a", "http://", "http://a:b", "http://u:p@a", "http://a?x=1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="write it like https"):
        ControlClient(url=url)


def sse(*events: tuple[int, str]) -> bytes:
    text = "".join(
        f'event: transition\nid: {seq}\ndata: {{"seq": {seq}, "note": "{note}"}}\n\n' for seq, note in events
    )
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + text.encode()


def test_a_stream_goes_on_where_it_was(serve: Serve) -> None:
    server = serve(sse((1, "a"), (2, "b")), b"", sse((3, "c")))
    found = []
    for item in follow(ControlClient(url=server.url, token="t"), 0):
        found.append(item if isinstance(item, DaemonUnreachable) else item.data["note"])
        if found[-1] == "c":
            break
    assert [each for each in found if isinstance(each, str)] == ["a", "b", "c"]
    assert [server.header(number, "Last-Event-ID") for number in range(3)] == ["0", "2", "2"]


def test_a_stream_that_never_was_is_an_error(serve: Serve, closed_url: str) -> None:
    with pytest.raises(DaemonUnreachable):
        next(follow(ControlClient(url=closed_url, token="t"), None))
    server = serve(problem(403, "needs scope read"))
    with pytest.raises(NoPermission):
        next(follow(ControlClient(url=server.url, token="t"), None))


def test_looking_needs_a_daemon_unless_there_is_patience(closed_url: str) -> None:
    client = ControlClient(url=closed_url, token="t")
    with pytest.raises(DaemonUnreachable):
        next(looks(client, "/v1/status"))
    found = list(looks(client, "/v1/status", patience=0.5))
    assert found
    assert all(look.found is None and closed_url in look.problem for look in found)
