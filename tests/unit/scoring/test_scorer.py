"""The scorer that a configuration describes."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from pydantic import TypeAdapter

from tao_daemon.clients.retry import RetryPolicy
from tao_daemon.clients.scoring_server import ScoringServer
from tao_daemon.config import ScorerConfig
from tao_daemon.domain.errors import ConfigError, UpstreamError
from tao_daemon.domain.ports import Scorer
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.signals import ScorerAsked, ScorerFailed, Signal
from tao_daemon.scoring import request_verifier
from tao_daemon.scoring.building import trains_and_judges
from tao_daemon.scoring.reward_model import RewardServer
from tao_daemon.scoring.scorer import REQUEST_SCORER, ConfiguredScorer

NEEDLE = "needle-7f3a"
CONFIG: TypeAdapter[ScorerConfig] = TypeAdapter(ScorerConfig)


def prompt(tenant: str = "", model: str = "m", system: str | None = None, **request: Any) -> Prompt:
    messages = [{"role": "user", "content": "q"}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    body = {"model": model, "messages": messages, **request}
    return Prompt("p1", body, Source("t", 0, 0), received_at=0.0, tenant=tenant)


def configs(*entries: dict[str, Any]) -> list[ScorerConfig]:
    return [CONFIG.validate_python(entry) for entry in entries]


def scorer(*entries: dict[str, Any], **more: Any) -> ConfiguredScorer:
    return ConfiguredScorer(configs(*entries), min_spread=0.05, **more)


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
    signals: list[Signal] = []
    length = {"name": "length", "type": "python", "callable": "users_scorers:length"}
    both = scorer(length, yes(), emit=signals.append)
    with caplog.at_level(logging.DEBUG):
        rewards = await both.score(prompt(), ["yes", f"fail {NEEDLE}", "no"])
    assert rewards == [1.0, None, 0.0]
    assert signals == [ScorerFailed("length", "error", 1)]
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


MATH = {"name": "sum", "type": "math", "expected": "regex:What is (.*)\\?"}
AGREEMENT = {"name": "same", "type": "agreement", "answer": "whole", "low": 0.3, "high": 0.9}
JUDGE = {"name": "judge", "type": "judge", "url": "http://127.0.0.1:9", "model": "m"}


async def test_a_scorer_that_finds_nothing_to_score_by_does_not_apply() -> None:
    both = scorer(MATH, yes())
    asked = Prompt("p", {"prompt": "What is 2 + 3?"}, Source("t", 0, 0), received_at=0.0)
    assert both.names(asked) == ("sum", "yes")
    assert both.names(prompt()) == ("yes",)
    assert await both.score(prompt(), ["yes", "5"]) == [1.0, 0.0]
    assert await both.score(asked, ["yes", "5", "-"]) == pytest.approx([0.625, 0.625, 0.25])
    assert not scorer(MATH).accepts(prompt())
    assert scorer(MATH).accepts(asked)


async def test_agreement_trains_and_is_left_out_of_evaluation() -> None:
    alone = scorer(AGREEMENT)
    texts = ["7", "7.0", "8", "9"]
    assert await alone.score(prompt(), texts) == [0.5, 0.5, 0.25, 0.25]
    assert await alone.score(prompt(), ["7"] * 4) == [0.5] * 4, "outside its band it tells nothing apart"
    assert await alone.absolute(prompt(), ["7", "8"]) == [None, None]
    both = scorer(AGREEMENT, yes(weight=3.0))
    assert await both.absolute(prompt(), ["yes", "no"]) == [1.0, 0.0]


async def test_a_scorer_without_spread_moves_no_difference() -> None:
    """Outside its band agreement gives everybody the same: what is left is the other scorer's, at its own weight."""
    both = scorer(AGREEMENT, yes(weight=3.0))
    assert await both.score(prompt(), ["yes", "no", "maybe", "never"]) == pytest.approx([0.875, 0.375, 0.375, 0.375])


async def test_only_what_is_free_is_previewed() -> None:
    async with aiohttp.ClientSession() as session:
        assert await scorer(yes()).preview(prompt(), ["yes", "no"]) == [1.0, 0.0]
        assert await scorer(yes(), AGREEMENT).preview(prompt(), ["yes"]) is None
        elsewhere = scorer(yes(), {**JUDGE, "match": {"tenant": "acme"}}, session=session)
        assert await elsewhere.preview(prompt(), ["yes"]) == [1.0]
        assert await elsewhere.preview(prompt(tenant="acme"), ["yes"]) is None


async def test_a_judge_that_cannot_be_reached_fails_its_groups_and_says_so() -> None:
    signals: list[Signal] = []
    async with aiohttp.ClientSession() as session:
        both = scorer(yes(), JUDGE, session=session, emit=signals.append)
        assert await both.score(prompt(), ["yes", "no", "perhaps"]) == [None] * 3
        assert ScorerFailed("judge", "unavailable", 3) in signals
        assert await both.absolute(prompt(), ["yes"]) == [1.0], "of one answer a judge says nothing"
        await both.close()
        await both.close()


def test_who_trains_and_judges() -> None:
    training = configs(
        JUDGE,
        AGREEMENT,
        yes(),
        {"name": "rm", "type": "reward_model", "url": "http://a/", "model": "r"},
        {"name": "other", "type": "reward_model", "url": "http://a", "model": "r2"},
    )
    assert trains_and_judges(training, ()) == ["judge", "rm", "other"]
    gate = configs(
        {**JUDGE, "name": "second"}, yes(), {"name": "x", "type": "reward_model", "url": "http://a", "model": "r"}
    )
    assert trains_and_judges(training, gate) == ["judge", "rm"]
    assert trains_and_judges(training, configs(yes(), {**JUDGE, "model": "another"})) == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"url": "http://judge"}, {"url": "http://Judge:80/"}, True),
        ({"url": "https://judge/a/"}, {"url": "HTTPS://judge:443/a"}, True),
        ({"url": "http://judge"}, {"url": "https://judge"}, False),
        ({"url": "http://judge/a"}, {"url": "http://judge/A"}, False),
        ({"model": "rewards/one"}, {"model": "./rewards/one/"}, True),
        ({"model": "rewards/one"}, {"model": "rewards/two"}, False),
        ({"model": "m"}, {"model": "m", "url": "http://judge"}, False),
    ],
)
def test_a_model_is_the_same_however_its_place_is_written(
    one: dict[str, str], other: dict[str, str], same: bool
) -> None:
    training, gate = (configs({"name": "rm", "type": "reward_model", "model": "m", **each}) for each in (one, other))
    assert trains_and_judges(training, gate) == (["rm"] if same else [])


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
        ({"name": "s", "type": "match", "expected": "nonsense:"}, "nonsense"),
        (JUDGE, "it asks http://127.0.0.1:9, which is not done here"),
        ({"name": "s", "type": "reward_model", "model": "missing"}, "cannot read missing/config.json"),
        ({"name": "s", "type": "reward_model", "model": "two"}, "two has 2 outputs"),
        ({"name": "s", "type": "reward_model", "model": "chat"}, "not a sequence classifier"),
        ({"name": "s", "type": "reward_model", "model": "list"}, "no JSON object"),
        ({"name": "s", "type": "reward_model", "model": "odd"}, "no known architecture"),
        ({"name": "s", "type": "reward_model", "model": "labels"}, "labels has 2 outputs"),
        ({"name": "s", "type": "json_schema", "schema_file": "deep.json"}, "nested too deeply"),
        ({"name": "s", "type": "json_schema", "schema_file": "lost.json"}, "cannot be followed"),
        ({"name": "s", "type": "json_schema", "schema_file": "."}, "cannot read schema_file"),
        ({"name": "s", "type": "sql", "fixture": "missing.sql"}, "scorer 's' .*cannot read fixture missing.sql"),
    ],
)
def test_a_scorer_that_cannot_work_stops_the_start(
    config: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.json").write_text("not json")
    (tmp_path / "bad.json").write_text('{"type": "objekt"}')
    (tmp_path / "remote.json").write_text('{"$ref": "http://127.0.0.1:9/"}')
    for folder, config_text in (
        ("two", '{"architectures": ["LlamaForSequenceClassification"]}'),
        ("chat", '{"architectures": ["LlamaForCausalLM"]}'),
        ("list", "[]"),
        ("odd", '{"architectures": {"a": 1}}'),
        ("labels", '{"architectures": ["LlamaForSequenceClassification"], "id2label": 7}'),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(config_text)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "lost.json").write_text('{"$ref": "#/default", "default": {"allOf": 5}}')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        scorer(config)


async def test_what_no_scorer_matches_any_more_is_a_failure_and_no_bug() -> None:
    signals: list[Signal] = []
    nobody = scorer(yes(match={"tenant": "acme"}), emit=signals.append)
    assert await nobody.preview(prompt(), ["a", "b"]) == [None, None]
    assert signals == []
    assert await nobody.score(prompt(), ["a", "b"]) == [None, None]
    assert await nobody.absolute(prompt(), ["a"]) == [None]
    assert signals == [ScorerFailed("none", "unmatched", 2), ScorerFailed("none", "unmatched", 1)]
    assert await nobody.score(prompt(), []) == []
    assert len(signals) == 2


def test_agreement_alone_accepts_and_does_not_judge() -> None:
    assert scorer(AGREEMENT).accepts(prompt())
    assert not scorer(AGREEMENT).judges(prompt())
    assert not scorer().judges(prompt())
    assert scorer().judges(prompt(response_format={"type": "json_object"}))
    assert scorer(AGREEMENT, yes()).judges(prompt())


async def test_a_preview_reports_nothing(user_module: ModuleType) -> None:
    signals: list[Signal] = []
    length = {"name": "length", "type": "python", "callable": "users_scorers:length"}
    assert await scorer(length, emit=signals.append).preview(prompt(), ["aa", "fail"]) == [0.2, None]
    assert signals == []


def test_queries_are_not_free(tmp_path: Path) -> None:
    fixture = tmp_path / "f.sql"
    fixture.write_text("CREATE TABLE t AS SELECT 1 AS a")
    configured = scorer({"name": "sql", "type": "sql", "fixture": fixture})
    assert asyncio.run(configured.preview(prompt(), ["FROM t"])) is None
    asyncio.run(configured.close())


async def test_a_schema_is_not_compiled_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[int] = set()
    compiled = request_verifier.JsonVerifier

    def spy(*schema: Any, **settings: Any) -> Any:
        threads.add(threading.get_ident())
        return compiled(*schema, **settings)

    monkeypatch.setattr(request_verifier, "JsonVerifier", spy)
    schema = {"type": "object", "required": ["only here"]}
    asked = prompt(response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    configured = scorer()
    assert await configured.score(asked, ["{}"]) == [0.3]
    request_verifier._verifier.cache_clear()
    assert await configured.preview(asked, ["{}"]) == [0.3]
    assert await configured.absolute(asked, ["{}"]) == [0.3]
    assert threads
    assert threading.get_ident() not in threads


RM = {"name": "rm", "type": "reward_model", "url": "http://127.0.0.1:9", "model": "m"}


@pytest.mark.parametrize("down", [JUDGE, RM])
async def test_a_server_that_leaves_eight_calls_unanswered_is_waited_for(
    down: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    signals: list[Signal] = []
    async with aiohttp.ClientSession() as session:
        both = scorer(yes(), down, session=session, emit=signals.append)
        monkeypatch.setattr(both._entries[1].grader, *quick_client(down, session))
        texts = ["yes", "no"]
        assert [await both.score(prompt(), texts) for _ in range(4)] == [[None] * 2] * 4
        assert [await both.absolute(prompt(), texts) for _ in range(3)] == [[None] * 2] * 3
        assert len(signals) == 7 + len([s for s in signals if isinstance(s, ScorerAsked)])
        before = len([s for s in signals if isinstance(s, ScorerFailed)])
        with pytest.raises(UpstreamError, match=f"scorer '{down['name']}' left its last 8 calls"):
            await both.score(prompt(), texts)
        with pytest.raises(UpstreamError, match="left its last 9 calls"):
            await both.absolute(prompt(), texts)
        assert len([s for s in signals if isinstance(s, ScorerFailed)]) == before, "they are asked again"
        await both.close()


def quick_client(config: dict[str, Any], session: aiohttp.ClientSession) -> tuple[str, Any]:
    """The grader's client, without its patience."""
    server = ScoringServer(config["url"], api_key=None, session=session, retry=RetryPolicy(attempts=1))
    if config["type"] == "judge":
        return "_server", server
    return "_source", RewardServer(server, model="m", api="score", timeout_seconds=5.0, concurrent_requests=1)


async def test_what_trains_and_judges_is_built_once() -> None:
    async with aiohttp.ClientSession() as session:
        training = scorer(JUDGE, RM, session=session)
        configs = [*training.graders]
        stricter = configs[1].model_copy(update={"center": 1.0})
        gate = ConfiguredScorer([configs[0], stricter], min_spread=0.05, session=session, beside=training)
        assert gate.graders[configs[0]] is training.graders[configs[0]]
        assert gate.graders[stricter] not in training.graders.values()


async def test_what_trains_and_judges_is_closed_by_both_who_hold_it(tmp_path: Path) -> None:
    fixture = tmp_path / "shop.sql"
    fixture.write_text("CREATE TABLE items AS SELECT 1 AS price")
    training = scorer({"name": "query", "type": "sql", "fixture": str(fixture)}, yes())
    gate = ConfiguredScorer([*training.graders], min_spread=0.05, beside=training)
    query = "SELECT price FROM items"
    assert await gate.absolute(prompt(), [query]) == [0.5]
    await asyncio.gather(training.close(), gate.close())
    await training.close()
    await gate.close()
    assert await training.score(prompt(), [query]) == await gate.absolute(prompt(), [query]) == [None]
