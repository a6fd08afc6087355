"""The contract between daemon and worker survives the trip, and says what is wrong with what does not."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tao_daemon.domain.adapter import Fingerprint, FingerprintProbe
from tao_daemon.domain.completion import Completion, CompletionGroup, ScoredGroup
from tao_daemon.domain.signals import MismatchMeasured, TrainingStepped
from tao_daemon.learning.contract import (
    MAX_REASON,
    PhaseEntered,
    TrainingFailed,
    TrainingSpec,
    WorkerEvent,
    WorkerResult,
    decode_batch,
    decode_event,
    decode_result,
    decode_spec,
    encode_event,
    encode_group,
    encode_result,
    encode_spec,
)

SPEC = TrainingSpec(
    base_model="/models/base",
    start_adapter=None,
    start_base_digest=None,
    algorithm="clipped_policy_gradient",
    rank=16,
    alpha=32,
    learning_rate=5e-4,
    epochs=2,
    groups_per_step=8,
    max_sequence_tokens=4096,
    micro_batch_tokens=8192,
    clip_low=0.2,
    clip_high=0.28,
    strategy_clip_high=4.0,
    value_temperature=1.0,
    policy_temperature=0.0,
    gradient_clip=1.0,
    kl_budget=1.0,
    max_mismatch=0.2,
    min_spread=0.05,
    min_groups=4,
    dev_fraction=0.1,
    checkpoint_seconds=300.0,
    memory_headroom=0.1,
    gradient_checkpointing="auto",
    processes=0,
    dtype="auto",
    seed=7,
)
SECRET = "needle in the completion"
GROUP = ScoredGroup(
    CompletionGroup("p1", (1, 2), (Completion(0, "plain", SECRET, (3, 4), (-0.5, -1.25), "stop"),)), (0.75,), ("s",)
)


def test_spec_survives() -> None:
    assert decode_spec(encode_spec(SPEC)) == SPEC
    started = dataclasses.replace(
        SPEC,
        start_adapter="/adapters/a",
        start_base_digest="00ff",
        resume_from=("/b", "/a"),
        checkpoint_activations=True,
    )
    assert decode_spec(encode_spec(started)) == started


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": None}, "rank is None, expected int"),
        ({"rank": True}, "rank is True"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
        ({"kl_budget": float("nan")}, "kl_budget is nan"),
        ({"extra": 1}, "unknown extra"),
        ({"resume_from": "/a"}, "resume_from is '/a'"),
        ({"checkpoint_activations": 1}, "checkpoint_activations is 1, expected bool"),
    ],
)
def test_bad_spec_names_the_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_spec(json.dumps({**json.loads(encode_spec(SPEC)), **change}))


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[]", "holds list"), ("{}", "misses algorithm")])
def test_what_is_no_spec_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_spec(text)


def test_batch_carries_numbers_and_no_text() -> None:
    line = encode_group(GROUP)
    assert SECRET not in line
    (found,) = decode_batch([line])
    assert found.rewards == GROUP.rewards
    assert found.group.prompt_token_ids == GROUP.group.prompt_token_ids
    assert found.group.completions == (dataclasses.replace(GROUP.group.completions[0], text=""),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_token_ids": []}, "prompt has no tokens"),
        ({"prompt_token_ids": [1, -2]}, "integers from 0"),
        ({"completions": [{"strategy": "plain"}]}, "no 'token_ids'"),
    ],
)
def test_bad_batch_names_the_line(change: dict[str, object], message: str) -> None:
    good = encode_group(GROUP)
    with pytest.raises(ValueError, match=f"line 2 is not a scored group: .*{message}"):
        decode_batch([good, json.dumps({**json.loads(good), **change})])


def test_only_an_extracted_answer_may_come_without_logprobs() -> None:
    bare = dataclasses.replace(GROUP.group.completions[0], text="", logprobs=())
    for extracted in (True, False):
        completion = dataclasses.replace(bare, extracted=extracted)
        line = encode_group(
            dataclasses.replace(GROUP, group=dataclasses.replace(GROUP.group, completions=(completion,)))
        )
        if extracted:
            assert decode_batch([line])[0].group.completions == (completion,)
        else:
            with pytest.raises(ValueError, match="2 tokens and 0 log-probabilities"):
                decode_batch([line])


@pytest.mark.parametrize("logprob", ["NaN", "-Infinity"])
def test_logprobs_that_are_not_finite_are_refused(logprob: str) -> None:
    with pytest.raises(ValueError, match="not finite"):
        decode_batch([encode_group(GROUP).replace("-1.25", logprob)])


@pytest.mark.parametrize(
    "event",
    [PhaseEntered("loading"), MismatchMeasured(0.03), TrainingStepped(1, 4, 0.5, 0.01), TrainingFailed("why")],
)
def test_events_survive(event: WorkerEvent) -> None:
    assert decode_event(encode_event(event)) == event


@pytest.mark.parametrize("line", ["", "warning: x", "[1]", "null", '{"event": "new"}', '{"event": "progress"}'])
def test_foreign_lines_are_no_events(line: str) -> None:
    assert decode_event(line) is None


def test_a_reason_is_bounded() -> None:
    found = decode_event(encode_event(TrainingFailed("x" * 10_000)))
    assert found == TrainingFailed("x" * MAX_REASON)


def test_result_survives() -> None:
    result = WorkerResult("abc", {"kl": 0.25})
    assert decode_result(encode_result(result)) == result
    with pytest.raises(ValueError, match="not a result"):
        decode_result('{"metrics": {}}')


def test_fingerprint_survives() -> None:
    fingerprint = Fingerprint((FingerprintProbe((1, 2, 3), 1, (-0.1, -0.2), (-1.0, -2.0)),))
    assert Fingerprint.from_json(fingerprint.to_json()) == fingerprint


@pytest.mark.parametrize("change", [{"start": 0}, {"start": 3}, {"adapter_logprobs": [-0.1]}, {"token_ids": None}])
def test_a_probe_that_does_not_add_up_is_refused(change: dict[str, object]) -> None:
    good = {"token_ids": [1, 2, 3], "start": 1, "adapter_logprobs": [-0.1, -0.2], "base_logprobs": [-1.0, -2.0]}
    Fingerprint.from_json(json.dumps({"probes": [good]}))
    with pytest.raises(ValueError, match="not a fingerprint"):
        Fingerprint.from_json(json.dumps({"probes": [{**good, **change}]}))
