"""The control API under clumsy and hostile clients, damaged files and crashes. The daemon is a process."""

from __future__ import annotations

import json
import resource
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import RemoteDisconnected
from pathlib import Path
from typing import Any

import pytest

from tao_daemon.registry.chain import COLUMNS, digest
from tao_daemon.registry.journal import Journal

MEBIBYTE = 1_048_576


@pytest.fixture
def site(make_site: Callable[..., Any]) -> Any:
    site = make_site(kafka={"enabled": False})
    site.start()
    return site


def data_dir(site: Any) -> Path:
    return Path(site.config["daemon"]["data_dir"])


def connect(site: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", site.config["control"]["port"]), timeout=10)


def event_types(site: Any) -> list[str]:
    return [entry["event"]["type"] for entry in site.get("/v1/audit?limit=1000")["entries"]]


def test_a_damaged_token_file_is_said_and_the_local_token_still_works(site: Any) -> None:
    ann, file = site.issue("ann", "read"), data_dir(site) / "tokens.json"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"expires_at": null', b'"expires_at": "soon"'))
    for answer in (site.ask("GET", "/v1/whoami", token=ann), site.ask("GET", "/v1/tokens", token=site.token)):
        assert answer.status == 503
        assert "tokens.json" in answer.json["error"]["message"]
    assert site.ask("GET", "/v1/whoami", token=site.token).status == 200
    file.write_bytes(whole)
    assert site.ask("GET", "/v1/whoami", token=ann).status == 200


def test_tokens_that_cannot_be_written_stay_as_they_are_and_the_journal_says_nothing_else(
    make_site: Callable[..., Any],
) -> None:
    site = make_site(kafka={"enabled": False})
    data_dir(site).mkdir(parents=True)
    old = {"id": "0", "name": "old", "scopes": ["read"], "created_at": 1.0, "expires_at": None, "revoked_at": 2.0}
    tokens = [{**old, "sha256": "00" * 32}] * 8000
    (data_dir(site) / "tokens.json").write_text(json.dumps({"version": 1, "tokens": tokens}))
    site.start()
    ann = site.issue("ann", "read")
    listed = site.ask("GET", "/v1/tokens", token=site.token).json["tokens"][-1]
    unlimited = resource.prlimit(site.daemon.pid, resource.RLIMIT_FSIZE)
    # No file grows above this: as on a full disk, but only this one is as large.
    resource.prlimit(site.daemon.pid, resource.RLIMIT_FSIZE, (MEBIBYTE, unlimited[1]))
    for answer in (
        site.ask("POST", "/v1/tokens", {"name": "bob", "scopes": ["read"]}, site.token),
        site.ask("DELETE", f"/v1/tokens/{listed['id']}", token=site.token),
    ):
        assert answer.status == 503
        assert "cannot write the tokens" in answer.json["error"]["message"]
    assert "TokenRevoked" not in event_types(site)
    resource.prlimit(site.daemon.pid, resource.RLIMIT_FSIZE, unlimited)
    assert site.ask("DELETE", f"/v1/tokens/{listed['id']}", token=site.token).status == 200
    assert site.ask("GET", "/v1/whoami", token=ann).status == 401


def test_one_name_asked_for_by_many_at_once_is_given_once(site: Any) -> None:
    def create(_: int) -> int:
        return int(site.ask("POST", "/v1/tokens", {"name": "same", "scopes": ["read"]}, site.token).status)

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(create, range(8)))
    assert sorted(statuses) == [201] + [409] * 7
    assert event_types(site).count("TokenIssued") == 1


def test_what_the_journal_calls_revoked_opens_nothing_after_a_crash(make_site: Callable[..., Any]) -> None:
    site = make_site(kafka={"enabled": False})
    site.daemon.environment = {"TAO_KILL_AT": "journaled.TokenRevoked"}
    site.start()
    ann = site.issue("ann", "read")
    [listed] = site.ask("GET", "/v1/tokens", token=site.token).json["tokens"]
    with pytest.raises(RemoteDisconnected):
        site.ask("DELETE", f"/v1/tokens/{listed['id']}", token=site.token)
    site.daemon.popen.wait(10)
    site.daemon.environment = {}
    site.start()
    assert "TokenRevoked" in event_types(site)
    assert site.ask("GET", "/v1/whoami", token=ann).status == 401


def test_who_only_reads_cannot_pose_as_a_gateway(site: Any) -> None:
    reader, gateway = site.issue("reader", "read"), site.issue("eu", "gateway")
    assert site.ask("GET", "/v1/routes", token=reader).status == 200
    assert site.ask("GET", "/v1/routes?gateway=phantom", token=reader).status == 403
    assert site.get("/v1/gateways")["gateways"] == []
    assert site.ask("GET", "/v1/routes?gateway=eu", token=gateway).status == 200
    assert [each["gateway"] for each in site.get("/v1/gateways")["gateways"]] == ["eu"]


def test_a_report_of_a_megabyte_holds_up_nobody(site: Any) -> None:
    gateway = site.issue("eu", "gateway")
    for name in ("splits", "in_flight"):
        entries: dict[str, Any] = {str(number): {} if name == "splits" else 0 for number in range(70_000)}
        began = time.monotonic()
        answer = site.ask("PUT", "/v1/gateways/eu", {"generation": 0, name: entries}, gateway)
        assert answer.status == 422
        assert len(answer.raw) < 1000
        assert time.monotonic() - began < 3


def test_a_head_without_end_is_cut_off(site: Any) -> None:
    with connect(site) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ")
        with pytest.raises(ConnectionError):
            client.sendall(b"a" * (64 * MEBIBYTE))
    with connect(site) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: " + b"a" * 40_000 + b"\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_a_body_that_nobody_asked_for_ends_the_stream_and_is_no_bug(site: Any) -> None:
    head = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.token}\r\nContent-Length: {4 * MEBIBYTE}"
    with connect(site) as client:
        client.sendall(head.encode() + b"\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        client.sendall(b"a" * (2 * MEBIBYTE))
        told = b""
        while not told.endswith(b"0\r\n\r\n"):
            told += (more := client.recv(1000))
            assert more, "the connection is closed before the stream's end"
    assert site.get("/v1/status")
    assert '"ERROR"' not in site.daemon.tail()


def test_a_reader_of_a_journal_that_was_replaced_hears_what_happens_now(site: Any) -> None:
    request = f"GET /v1/events?after=1000 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {site.token}\r\n\r\n"
    with connect(site) as client:
        client.sendall(request.encode())
        found = client.recv(1000)
        pausing = threading.Timer(0.5, site.ask, ("POST", "/v1/rollout/pause", {}, site.token))
        pausing.start()
        while b"RolloutPaused" not in found:
            found += client.recv(1000)
        pausing.join()


def test_a_token_file_that_a_crash_left_empty_is_made_anew(make_site: Callable[..., Any]) -> None:
    site = make_site(kafka={"enabled": False})
    data_dir(site).mkdir(parents=True)
    (data_dir(site) / "control.token").touch(0o600)
    site.start()
    assert site.ask("GET", "/v1/whoami", token=site.token).json["name"] == "local"
    assert (data_dir(site) / "control.token").stat().st_mode & 0o777 == 0o600


def test_one_report_beyond_reading_hides_no_other(site: Any) -> None:
    rounds = data_dir(site) / "rounds"
    for number, text in ((1, '{"round": 1, "outcome": "failed", "phases": {}}'), (2, "[" * 200_000)):
        (rounds / f"{number:06d}").mkdir(parents=True)
        (rounds / f"{number:06d}" / "report.json").write_text(text)
    told = site.get("/v1/rounds")["rounds"]
    assert [(each["round"], "problem" in each) for each in told] == [(1, False), (2, True)]
    assert site.ask("GET", "/v1/rounds/2", token=site.token).status == 503


def test_many_who_verify_hold_up_no_other_reader(make_site: Callable[..., Any]) -> None:
    site = make_site(kafka={"enabled": False})
    site.start()
    site.daemon.stop()
    lengthen(data_dir(site) / "control.db", 30_000)
    site.start()
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(site.ask, "GET", "/v1/audit/verify", None, site.token) for _ in range(20)]
        time.sleep(0.2)
        began = time.monotonic()
        assert site.ask("GET", "/v1/audit?limit=1", token=site.token).status == 200
        waited = time.monotonic() - began
        found = [each.result().json for each in asked]
    assert all(each["problem"] is None and each["entries"] > 30_000 for each in found)
    assert waited < 2


def lengthen(path: Path, entries: int) -> None:
    """As many copies of the journal's last entry, chained, without a sync for each."""
    with closing(Journal(path)) as journal:
        db = journal._db
        (seq, *values, previous) = db.execute(
            "SELECT seq, at, event, state_after, commands, actor, note, hash FROM journal ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        rows = []
        for number in range(seq + 1, seq + 1 + entries):
            row = (number, *values, previous)
            previous = digest(row)
            rows.append((*row, previous))
        db.execute("BEGIN")
        db.executemany(f"INSERT INTO journal ({', '.join(COLUMNS)}) VALUES (?,?,?,?,?,?,?,?,?)", rows)
        db.execute("COMMIT")
