"""The control API as a client meets it: scopes, errors of one shape, keys, live events. The daemon is a process."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

SCOPES = ("read", "operate", "approve", "gateway", "admin")
_INCLUDED = {
    "read": {"read"},
    "operate": {"operate", "read"},
    "approve": {"approve", "operate", "read"},
    "gateway": {"gateway"},
    "admin": set(SCOPES),
}
OPEN = {"/livez", "/readyz", "/metrics"}


@pytest.fixture
def site(make_site: Callable[..., Any]) -> Any:
    site = make_site(kafka={"enabled": False})
    site.start()
    return site


def routes(site: Any) -> list[tuple[str, str, list[str] | None]]:
    """Method, path with every parameter filled in, and the scopes any one of which is demanded (None: open)."""
    found = []
    for path, operations in site.ask("GET", "/openapi.json").json["paths"].items():
        filled = path.replace("{id}", "1").replace("{name}", "nobody") + (
            "?left=1&right=2" if "compare" in path else ""
        )
        for method, operation in operations.items():
            demand = operation.get("security")
            found.append((method.upper(), filled, demand[0]["token"] if demand else None))
    return found


def test_no_route_is_open_without_its_scope(site: Any) -> None:
    tokens = {scope: site.issue(scope, scope) for scope in SCOPES}
    seen = routes(site)
    assert {path for _, path, demand in seen if demand is None} == OPEN
    for method, path, demand in seen:
        if demand is None:
            continue
        assert site.ask(method, path).status == 401, (method, path)
        assert site.ask(method, path, token="wrong").status == 401, (method, path)
        if path == "/v1/events":
            continue
        for scope, token in tokens.items():
            allowed = not demand or bool(_INCLUDED[scope].intersection(demand))
            # An empty body, where one is wanted, is refused after the scope was looked at.
            status = site.ask(method, path, token=token).status
            assert (status != 403) is allowed, (method, path, scope, status)


def test_every_error_has_one_shape(site: Any) -> None:
    for method, path, body, token, status in [
        ("GET", "/v1/status", None, None, 401),
        ("GET", "/nowhere", None, site.token, 404),
        ("GET", "/v1/rounds/7", None, site.token, 404),
        ("GET", "/v1/rollout", None, site.token, 404),
        ("PATCH", "/v1/rounds", {}, site.token, 405),
        ("GET", "/v1/rounds?limit=0", None, site.token, 422),
        ("POST", "/v1/rounds", b"\x80\x81", site.token, 400),
        ("POST", "/v1/rounds", {"reason": 7}, site.token, 422),
        ("POST", "/v1/rounds", {"reson": "x"}, site.token, 422),
        ("POST", "/v1/rounds", b" " * 2_000_000, site.token, 413),
        ("DELETE", "/v1/tokens/nobody", None, site.token, 409),
    ]:
        answer = site.ask(method, path, body, token)
        assert answer.status == status, (method, path, answer.raw)
        problem = answer.json["error"]
        assert set(problem) == {"code", "message", "remedy"}
        assert problem["message"]
    assert site.ask("PATCH", "/v1/rounds", {}, site.token).headers["Allow"] == "GET, POST"


def test_the_same_request_twice_is_done_once(site: Any) -> None:
    key = {"Idempotency-Key": "k1"}
    first = site.ask("POST", "/v1/rounds", {"reason": "once"}, site.token, key)
    again = site.ask("POST", "/v1/rounds", {"reason": "once"}, site.token, key)
    assert first.json["replayed"] is False
    assert again.json == {**first.json, "replayed": True}
    other = site.ask("POST", "/v1/rounds", {"reason": "another"}, site.token, key)
    assert (other.status, other.json["error"]["code"]) == (422, "idempotency_key_reused")
    site.daemon.kill()
    site.start()
    later = site.ask("POST", "/v1/rounds", {"reason": "once"}, site.token, key)
    assert later.json == again.json, "a restart forgets no key"
    requested = [e for e in site.get("/v1/audit?limit=1000")["entries"] if e["event"]["type"] == "RoundRequested"]
    assert [entry["event"]["reason"] for entry in requested] == ["once"]


def test_keys_belong_to_who_sends_them(site: Any) -> None:
    ann = site.issue("ann", "operate")
    for token in (site.token, ann):
        answer = site.ask("POST", "/v1/rounds/cancel", {}, token, {"Idempotency-Key": "same"})
        assert answer.status == 409
        assert answer.json["replayed"] is False


def test_the_journal_names_the_token_and_the_reason(site: Any) -> None:
    ann = site.issue("ann", "operate")
    site.ask("POST", "/v1/rollout/undo", {"reason": "answers got longer", "actor": "eve"}, ann)
    entry = site.get("/v1/audit?limit=1000")["entries"][-1]
    assert (entry["actor"], entry["event"]["reason"]) == ("ann (eve)", "answers got longer")
    issued = next(e for e in site.get("/v1/audit")["entries"] if e["event"]["type"] == "TokenIssued")
    assert issued["event"]["scopes"] == ["operate"]
    assert ann not in json.dumps(site.get("/v1/audit?limit=1000&full=true"))


def test_a_revoked_token_ends_at_once(site: Any) -> None:
    ann = site.issue("ann", "read")
    listed = site.ask("GET", "/v1/tokens", token=site.token).json["tokens"]
    assert site.ask("GET", "/v1/whoami", token=ann).json == {"name": "ann", "scopes": ["read"]}
    assert site.ask("DELETE", f"/v1/tokens/{listed[0]['id']}?reason=left", token=site.token).status == 200
    assert site.ask("GET", "/v1/whoami", token=ann).status == 401


def test_live_events_go_on_where_a_reader_stopped(site: Any) -> None:
    def read(count: int, headers: dict[str, str], *, then: Callable[[], Any] = lambda: None) -> list[tuple[int, str]]:
        """The first `count` transitions; `then` is done once the stream is open."""
        request = urllib.request.Request(
            f"{site.control_url}/v1/events", headers={"Authorization": f"Bearer {site.token}", **headers}
        )
        found: list[tuple[int, str]] = []
        with urllib.request.urlopen(request, timeout=15) as stream:
            then()
            block: dict[str, str] = {}
            while len(found) < count:
                line = stream.readline().decode().rstrip("\n")
                if line:
                    name, _, value = line.partition(": ")
                    block[name] = value
                elif block.get("event") == "transition":
                    found.append((int(block["id"]), json.loads(block["data"])["type"]))
                    block = {}
        return found

    head = site.get("/v1/audit")["head"]["seq"]
    live = read(1, {}, then=lambda: site.ask("POST", "/v1/rollout/pause", {}, site.token))
    assert live == [(head + 1, "RolloutPaused")]
    site.ask("POST", "/v1/rollout/resume", {}, site.token)
    assert read(2, {"Last-Event-ID": str(head)}) == [(head + 1, "RolloutPaused"), (head + 2, "RolloutResumed")]


def test_a_stop_does_not_wait_for_readers(site: Any) -> None:
    request = urllib.request.Request(f"{site.control_url}/v1/events", headers={"Authorization": f"Bearer {site.token}"})
    with urllib.request.urlopen(request, timeout=15):
        assert site.daemon.stop(15) == 0
    assert "Traceback" not in site.daemon.log.read_text()


def test_browsers_are_told_to_trust_only_the_daemon(site: Any) -> None:
    for path in ("/console/", "/v1/status", "/nowhere"):
        headers = site.ask("GET", path, token=site.token).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
