"""A bug in a route: the one shape of an error, the browser's headers, and none of its text in the log."""

from __future__ import annotations

import logging

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tao_daemon.control import problems
from tao_daemon.control.middleware import Guard

NEEDLE = "needle-of-a-prompt"


def test_a_bug_is_answered_in_shape_and_its_text_goes_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[str, str, int]] = []
    app = FastAPI()
    problems.install(app)
    app.add_middleware(Guard, observe=lambda method, route, status, seconds: seen.append((method, route, status)))

    @app.get("/broken/{id}")
    async def broken(id: int) -> None:
        raise KeyError(NEEDLE)

    with caplog.at_level(logging.DEBUG):
        answer = TestClient(app).get("/broken/7")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert NEEDLE not in answer.text
    assert not [record for record in caplog.records if NEEDLE in record.getMessage() or record.exc_info]
    assert [record.error_type for record in caplog.records if record.levelno == logging.ERROR] == ["KeyError"]
    assert seen == [("GET", "/broken/{id}", 500)]
