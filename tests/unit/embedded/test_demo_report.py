"""The report repeats the gate's own numbers and shows what the model said, not what would look best."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from tao_daemon.domain.report import Pair
from tao_daemon.embedded.demo_report import EXAMPLES, Promotion, build_report, curl, report_lines
from tao_daemon.evaluation.gate import Limits, judge

LIMITS = Limits(
    min_prompts=20,
    confidence=0.95,
    resamples=1000,
    min_differing_pairs=5,
    max_length_ratio=1.2,
    max_truncation_increase=0.02,
)
INCUMBENT = [0.0, 0.3, 1.0, 0.0] * 6
CANDIDATE = [1.0, 1.0, 0.9, 1.0] * 6


STEP = {"seq": 9, "at": 1.0, "phase": "shadow", "step": 0, "fraction": 0.0, "actor": "daemon", "note": "verified"}


def promotion(**changes: Any) -> Promotion:
    pairs = [
        Pair(f"p{place}", before, after, 32, 16, True, False)
        for place, (before, after) in enumerate(zip(INCUMBENT, CANDIDATE, strict=True))
    ]
    verdict = judge(pairs, LIMITS, available=len(pairs), seed=0)
    phases = {"claiming": {"seconds": 0.1}, "sampling": {"seconds": 60.04}, "training": {"seconds": 100.0}}
    accepted = {
        "round": 2,
        "candidate": "tao-r2-abc",
        "incumbent": None,
        "verdict": {"decision": "pass", "reasons": list(verdict.reasons), "numbers": dict(verdict.numbers)},
        "phases": phases,
    }
    values: dict[str, Any] = {
        "round_report": accepted,
        "rollout": {"steps": [STEP, {**STEP, "phase": "canary", "fraction": 0.25, "note": "12 pairs passed; 25%"}]},
        "earlier_reports": [{"round": 1, "phases": {"sampling": {"seconds": 50.0}}}],
        "evaluation": [
            {
                "prompt_id": pair.prompt_id,
                "incumbent_text": "{\n\n broken",
                "candidate_text": '{"category": "billing", "urgent": true}',
                "incumbent_score": pair.incumbent_score,
                "candidate_score": pair.candidate_score,
            }
            for pair in pairs
        ],
        "texts": {f"p{place}": f"It's ticket {place}" for place in range(1, 24)},
        "seconds": {"install": 150.0, "model": 40.0, "vllm_start": 45.0, "rollout": 45.0, "total": 300.0},
        "buffer": {"train": 200},
        "live_requests": 40,
        "live_errors": 1,
        "last_answer": None,
        "gateway": "http://127.0.0.1:1234",
    }
    return Promotion(**{**values, **changes})


def test_scores_are_those_of_the_gate() -> None:
    report = build_report(promotion())
    assert report["base_score"] == pytest.approx(0.325)
    assert report["adapter_score"] == pytest.approx(0.975)
    assert report["difference"] == pytest.approx(0.65)
    low, high = report["difference_ci95"]
    assert 0 < low < 0.65 < high
    assert report["base_ci95"][0] < 0.325 < report["base_ci95"][1]
    assert (report["base_valid"], report["adapter_valid"]) == (0.25, 0.75)
    assert report["adapter"] == "tao-r2-abc"


def test_it_tells_how_the_adapter_was_rolled_out() -> None:
    text = "\n".join(report_lines(build_report(promotion()), keeps_running=False))
    assert "shadow       verified" in text
    assert "canary 25%   12 pairs passed" in text


def test_it_is_json() -> None:
    report = build_report(promotion())
    assert json.loads(json.dumps(report)) == report


def test_seconds_come_in_order_and_cover_all_rounds() -> None:
    seconds = build_report(promotion())["seconds"]
    assert seconds["sampling"] == pytest.approx(110.0)
    assert next(iter(seconds)) == "install"
    assert list(seconds)[-1] == "total"
    assert list(seconds).index("vllm_start") < list(seconds).index("training") < list(seconds).index("rollout")


def test_a_failed_round_before_is_counted_as_what_it_was() -> None:
    report = build_report(promotion())
    assert report["rounds"] == 2
    assert report["round_outcomes"] == [{"round": 1, "decision": "failed"}, {"round": 2, "decision": "pass"}]


def test_examples_are_the_first_that_are_known_whatever_their_scores() -> None:
    examples = build_report(promotion())["examples"]
    assert [example["ticket"] for example in examples] == [f"It's ticket {n}" for n in range(1, EXAMPLES + 1)]
    assert [example["after_score"] for example in examples] == CANDIDATE[1 : EXAMPLES + 1]


def test_the_text_says_what_the_numbers_say() -> None:
    report = build_report(promotion())
    text = "\n".join(report_lines(report, keeps_running=True))
    assert "before (base model): 0.33 [" in text or "before (base model): 0.32 [" in text
    assert "75% of the answers fully valid" in text
    assert "24 pairs, fewer than the 200 recommended" in text
    assert "40 live questions through the gateway, 1 error." in text
    assert report["ask"] in text
    assert "without --once" in "\n".join(report_lines(report, keeps_running=False))


def test_the_curl_line_survives_a_shell() -> None:
    words = shlex.split(curl("http://gateway", 'It\'s "broken"\nnow'))
    body = json.loads(words[words.index("-d") + 1])
    assert body["model"] == "assistant"
    assert 'It\'s "broken"\nnow' in body["messages"][-1]["content"]
