"""The scorer that a configuration describes."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tao_daemon.config import ScorerConfig
from tao_daemon.domain.errors import ConfigError
from tao_daemon.domain.ports import Scorer
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.scoring.scorer import REQUEST_SCORER, ConfiguredScorer

NEEDLE = "needle-7f3a"


def prompt(tenant: str = "", model: str = "m", system: str | None = None, **request: Any) -> Prompt:
    messages = [{"role": "user", "content": "q"}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    body = {"model": model, "messages": messages, **request}
    return Prompt("p1", body, Source("t", 0, 0), received_at=0.0, tenant=tenant)


def scorer(*configs: dict[str, Any]) -> ConfiguredScorer:
    return ConfiguredScorer([ScorerConfig(**config) for config in configs], min_spread=0.05)


def yes(name: str = "yes", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "regex", "pattern": "yes", **more}


@pytest.fixture
def user_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("users_scorers")

    def length(request: dict[str, Any], answer: str) -> float:
        if answer.startswith("fail"):
            raise RuntimeError(answer)
        return len(answer) / 10

    module.length = length  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "users_scorers", module)
    return module


def test_it_is_a_scorer() -> None:
    checked: Scorer = scorer(yes())
    assert checked.names(prompt()) == ("yes",)


def test_only_what_matches_applies() -> None:
    digest = prompt(system="S").system_digest
    configured = scorer(
        yes("a", match={"tenant": "acme"}),
        yes("b", match={"model": "m", "system_sha256": digest}),
        yes("c", match={"model": "other"}),
    )
    assert configured.names(prompt(tenant="acme")) == ("a",)
    assert configured.names(prompt(system="S")) == ("b",)
    assert configured.names(prompt(model="other")) == ("c",)
    assert not configured.accepts(prompt())
    assert configured.accepts(prompt(tenant="acme", system="S"))


async def test_a_request_is_its_own_scorer() -> None:
    asked = prompt(response_format={"type": "json_object"})
    assert scorer().names(asked) == (REQUEST_SCORER,)
    assert await scorer().score(asked, ["{}", "no"]) == [1.0, 0.0]
    assert not scorer().accepts(prompt())


async def test_one_scorer_is_raw_and_several_are_ranked(user_module: ModuleType) -> None:
    length = {"name": "length", "type": "python", "callable": "users_scorers:length"}
    assert await scorer(length).score(prompt(), ["a" * 3, "a" * 4]) == [0.3, 0.4]
    both = scorer(length, yes(weight=3.0))
    assert await both.score(prompt(), ["yes", "not yes"]) == pytest.approx([0.75, 0.25])
    assert await both.absolute(prompt(), ["yes", "not yes"]) == pytest.approx([(0.3 + 3) / 4, 0.7 / 4])


async def test_evaluation_scores_do_not_depend_on_the_company(user_module: ModuleType) -> None:
    both = scorer({"name": "length", "type": "python", "callable": "users_scorers:length"}, yes())
    alone = [(await both.absolute(prompt(), [text]))[0] for text in ("yes", "no")]
    assert await both.absolute(prompt(), ["yes", "no"]) == alone


async def test_a_failure_leaves_its_text_without_a_reward_and_out_of_the_ranks(
    user_module: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    both = scorer({"name": "length", "type": "python", "callable": "users_scorers:length"}, yes())
    with caplog.at_level(logging.DEBUG):
        rewards = await both.score(prompt(), ["yes", f"fail {NEEDLE}", "no"])
    assert rewards == [1.0, None, 0.0]
    record = next(record for record in caplog.records if record.message == "scorer failed")
    assert (record.__dict__["scorer"], record.__dict__["failures"]) == ("length", {"error": 1})
    assert NEEDLE not in repr([record.__dict__ for record in caplog.records])


async def test_when_all_fail_none_has_a_reward(user_module: ModuleType) -> None:
    configured = scorer({"name": "length", "type": "python", "callable": "users_scorers:length"})
    assert await configured.score(prompt(), ["fail", "fail"]) == [None, None]
    assert await configured.score(prompt(), []) == []


async def test_checks_do_not_block_the_loop() -> None:
    slow = scorer({"name": "slow", "type": "regex", "pattern": "^(a|aa)+$", "timeout_seconds": 0.3})
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticker = asyncio.create_task(tick())
    assert await slow.score(prompt(), ["a" * 60 + "b"]) == [None]
    ticker.cancel()
    assert ticks >= 3


async def test_asking_for_a_score_that_nobody_gives_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no scorer matches prompt p1"):
        await scorer().score(prompt(), ["x"])


async def test_a_schema_file_scores(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps({"type": "object", "required": ["a"]}))
    configured = scorer({"name": "json", "type": "json_schema", "schema_file": file})
    assert await configured.score(prompt(), ['{"a": 1}', "{}", "-"]) == [1.0, 0.3, 0.0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "s", "type": "regex", "pattern": "["}, "scorer 's' .*not a regular expression"),
        ({"name": "s", "type": "python", "callable": "no_such_module_anywhere:f"}, "cannot import"),
        ({"name": "s", "type": "json_schema", "schema_file": "missing.json"}, r"cannot read schema_file missing"),
        ({"name": "s", "type": "json_schema", "schema_file": "text.json"}, "is not JSON"),
        ({"name": "s", "type": "json_schema", "schema_file": "bad.json"}, "not a JSON Schema at"),
        ({"name": "s", "type": "json_schema", "schema_file": "remote.json"}, "inline it"),
    ],
)
def test_a_scorer_that_cannot_work_stops_the_start(
    config: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.json").write_text("not json")
    (tmp_path / "bad.json").write_text('{"type": "objekt"}')
    (tmp_path / "remote.json").write_text('{"$ref": "http://127.0.0.1:9/"}')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        scorer(config)
