"""Webhooks over real HTTP: a receiver that fails, hangs, goes away, restarts; nothing lost, order kept."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import sqlite3
import time
from typing import Any

import pytest

from tao_daemon.domain.events import DaemonStarted, ReplicaDrifted
from tao_daemon.registry.journal import Journal
from tests.machine_plays import settling


def places(events: list[dict[str, Any]]) -> list[int]:
    return [event["data"]["journal"]["seq"] for event in events]


async def test_every_event_once_in_order(teller: Any, receiver: Any, hook: Any, until: Any) -> None:
    await teller.start(webhooks=[hook])
    teller.append(DaemonStarted("1"), *settling(1, "a1"))
    told = ["daemon.started", "round.started", "round.accepted", "rollout.staged", "rollout.shadow", "rollout.settled"]
    await until(lambda: len(receiver.taken()) == len(told), "a whole rollout")
    assert [event["type"].removeprefix("io.tao-daemon.") for event in receiver.taken()] == told
    teller.flap(3)
    await until(lambda: len(receiver.taken()) == len(told) + 3, "three more")
    found = receiver.taken()
    assert places(found) == sorted(places(found))
    assert len({event["id"] for event in found}) == len(found)
    _, headers, _ = receiver.requests[0]
    assert headers["Content-Type"] == "application/cloudevents+json; charset=UTF-8"


async def test_a_failing_receiver_misses_nothing(teller: Any, receiver: Any, hook: Any, until: Any) -> None:
    """503, no answer in time, 429, 408, then well again."""
    receiver.script = [503, "hang", 429, 408, 500, 200, 502, 200]
    await teller.start(webhooks=[hook])
    teller.flap(6)
    await until(lambda: len(receiver.taken()) == 6, "all six")
    assert places(receiver.taken()) == [1, 2, 3, 4, 5, 6]
    assert teller.outcomes().count("failed") == 6
    assert teller.outcomes().count("delivered") == 6
    assert max(teller.lags()) >= 1
    await until(lambda: teller.lags()[-1] == 0, "the lag to be told as gone")


async def test_a_receiver_that_is_not_there_is_waited_for(teller: Any, receiver: Any, hook: Any, until: Any) -> None:
    await receiver.stop()
    await teller.start(webhooks=[hook])
    teller.flap(4)
    await until(lambda: teller.outcomes().count("failed") >= 5, "some refused connections")
    teller.flap(4)
    await until(lambda: max(teller.lags()) == 8, "the lag to grow")
    await receiver.start()
    await until(lambda: len(receiver.taken()) == 8, "all eight")
    assert places(receiver.taken()) == list(range(1, 9))


@pytest.mark.parametrize("status", [400, 404, 410, 302])
async def test_what_is_refused_for_good_is_skipped_and_counted(
    teller: Any, receiver: Any, hook: Any, until: Any, status: int
) -> None:
    receiver.script = [200, status, 200]
    await teller.start(webhooks=[hook])
    teller.flap(3)
    await until(lambda: len(receiver.requests) == 3, "three requests")
    assert places(receiver.taken()) == [1, 3]
    await until(lambda: teller.outcomes() == ["delivered", "refused", "delivered"], "the outcomes")


async def test_a_restart_goes_on_where_it_was(teller: Any, receiver: Any, hook: Any, until: Any) -> None:
    await teller.start(webhooks=[hook])
    teller.flap(2)
    await until(lambda: len(receiver.taken()) == 2, "two events")
    await teller.stop()
    teller.flap(2)
    await teller.start(webhooks=[hook])
    await until(lambda: len(receiver.taken()) == 4, "what happened meanwhile")
    assert places(receiver.taken()) == [1, 2, 3, 4]


async def test_a_new_sink_is_not_told_the_past(teller: Any, receiver: Any, hook: Any, until: Any) -> None:
    teller.flap(40)
    await teller.start(webhooks=[hook])
    teller.flap(1)
    await until(lambda: receiver.taken(), "the first event")
    assert places(receiver.taken()) == [41]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"seq": "x", "hash": ""}'])
async def test_a_damaged_cursor_is_as_none(
    teller: Any, receiver: Any, hook: Any, until: Any, tmp_path: Any, content: str
) -> None:
    teller.flap(3)
    (tmp_path / "notifications").mkdir()
    (tmp_path / "notifications" / "hook.json").write_text(content)
    await teller.start(webhooks=[hook])
    teller.flap(1)
    await until(lambda: receiver.taken(), "the next event")
    assert places(receiver.taken()) == [4]


async def test_only_wanted_types_and_the_cursor_moves_all_the_same(
    teller: Any, receiver: Any, hook: Any, until: Any, tmp_path: Any
) -> None:
    await teller.start(webhooks=[{**hook, "types": ["daemon.*"]}])
    teller.flap(3)
    teller.append(DaemonStarted("1"))
    await until(lambda: receiver.taken(), "the wanted one")
    teller.flap(2)
    await until(lambda: teller.lags()[-1] == 0, "all to be read")
    await teller.stop()
    assert places(receiver.taken()) == [4]
    assert json.loads((tmp_path / "notifications" / "hook.json").read_text())["seq"] == 6


async def test_a_stop_has_a_deadline_and_loses_nothing(teller: Any, receiver: Any, hook: Any, until: Any) -> None:
    receiver.script = ["hang"] * 50
    hook["timeout_seconds"] = 20.0
    await teller.start(webhooks=[hook])
    teller.flap(1)
    await until(lambda: receiver.requests, "the request that hangs")
    began = time.monotonic()
    await teller.stop()
    assert time.monotonic() - began < 5.0
    receiver.script = []
    await teller.start(webhooks=[hook])
    await until(lambda: receiver.taken(), "the event")
    assert places(receiver.taken()) == [1]


async def test_one_dead_sink_holds_up_no_other(
    teller: Any, receiver: Any, hook: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEAD", "http://127.0.0.1:9/")
    await teller.start(webhooks=[{**hook, "name": "dead", "url": "env:DEAD"}, hook])
    teller.flap(5)
    await until(lambda: len(receiver.taken()) == 5, "all five")


async def test_a_journal_that_is_another_one_is_noticed(
    teller: Any, receiver: Any, hook: Any, until: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Restored from a backup: shorter, then with another past. Its newest entry is told, under ids of its own."""
    await teller.start(webhooks=[hook])
    teller.flap(6)
    await until(lambda: len(receiver.taken()) == 6, "six events")
    await teller.stop()
    with sqlite3.connect(tmp_path / "control.db") as db:
        db.execute("DELETE FROM journal WHERE seq > 3")
    teller.append(ReplicaDrifted("http://other", "restored"))
    with caplog.at_level(logging.ERROR):
        await teller.start(webhooks=[hook])
    assert "not the one that was told of" in caplog.text
    await until(lambda: len(receiver.taken()) == 7, "the newest entry")
    assert receiver.taken()[-1]["subject"] == "replica/http://other"
    assert receiver.taken()[-1]["id"] not in [event["id"] for event in receiver.taken()[:-1]]


async def test_an_entry_that_makes_no_sense_is_skipped(
    teller: Any, receiver: Any, hook: Any, until: Any, tmp_path: Any
) -> None:
    await teller.start(webhooks=[hook])
    journal = Journal(tmp_path / "control.db")
    state = {"round": {"no": "id"}, "rollout": 7}
    journal.append(at=1.0, event={"type": "E"}, state_after=state, commands=[], actor="a", note="")
    journal.close()
    with sqlite3.connect(tmp_path / "control.db") as db:
        assert db.execute("SELECT count(*) FROM journal").fetchone() == (1,)
    assert teller.running is not None
    teller.running.nudge()
    await until(lambda: teller.outcomes() == ["refused"], "it to be refused")
    assert not any(task.done() for task in teller.running.tasks)


async def test_a_signed_request_and_an_address_in_no_log(
    teller: Any,
    receiver: Any,
    hook: Any,
    until: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SIGNING", "k3y")
    receiver.script = [503, 400]
    with caplog.at_level(logging.DEBUG):
        await teller.start(webhooks=[{**hook, "secret": "env:SIGNING"}])
        teller.flap(2)
        await until(lambda: len(receiver.taken()) == 1, "the second event")
        await receiver.stop()
        teller.flap(1)
        await until(lambda: teller.outcomes()[-1] == "failed", "a refused connection")
    for _, headers, body in receiver.requests:
        assert headers["X-Tao-Signature"] == "sha256=" + hmac.new(b"k3y", body, hashlib.sha256).hexdigest()
    logged = caplog.text + repr([record.__dict__ for record in caplog.records])
    assert "very-secret" not in logged
    assert "hook" in logged


async def test_slack_gets_messages_and_retry_after_is_respected(
    teller: Any, receiver: Any, hook: Any, until: Any
) -> None:
    receiver.script, receiver.headers = [429], {"Retry-After": "1"}
    await teller.start(webhooks=[{**hook, "format": "slack"}])
    began = time.monotonic()
    teller.append(DaemonStarted("1"))
    await until(lambda: receiver.taken(), "the message")
    assert time.monotonic() - began >= 0.9
    (message,) = receiver.taken()
    assert message["blocks"][0]["text"]["text"] == "tao-daemon started"
