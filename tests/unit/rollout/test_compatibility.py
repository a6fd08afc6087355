"""Can a server do what serving adapters needs?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tao_daemon.rollout.compatibility import SLOTS, Delivery, Facts, Findings, Needs, examine

GOOD = Facts("0.32.0", ("base",), runtime_updates=True, lora_enabled=True, lora_slots=4)
NEEDS = Needs("base")


def test_a_server_as_it_should_be_has_no_problem() -> None:
    assert examine(GOOD, NEEDS) == Findings()
    assert examine(replace(GOOD, lora_slots=8, base_models=("other", "base"), version="v0.31.1"), NEEDS) == Findings()


@pytest.mark.parametrize(
    ("change", "fact", "remedy"),
    [
        ({"runtime_updates": False}, "no route", "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        ({"lora_enabled": False, "lora_slots": None}, "not enabled", "--enable-lora; start it with --max-loras 4"),
        ({"lora_slots": 3}, "holds 3 adapters", "--max-loras 4"),
        ({"lora_slots": 1}, "holds 1 adapters", "--max-loras 4"),
        ({"base_models": ("llama", "phi")}, "serves llama, phi, not 'base'", "serving.base_model"),
        ({"base_models": ()}, "no model", "serving.base_model"),
        ({"version": "0.30.2"}, "vLLM 0.30.2", "0.31 or newer"),
        ({"version": "0.9.0"}, "vLLM 0.9.0", "0.31 or newer"),
    ],
)
def test_a_refusal_names_the_fact_and_the_remedy(change: dict[str, object], fact: str, remedy: str) -> None:
    found = examine(replace(GOOD, **change), NEEDS)  # type: ignore[arg-type]
    assert [(fact in each.fact, remedy in each.remedy) for each in found.refusals] == [(True, True)]
    assert found.cautions == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lora_slots": None}, "does not say how many adapters"),
        ({"lora_slots": None, "lora_enabled": None}, "--max-loras 4"),
        ({"version": ""}, "does not tell its version"),
        ({"version": "0.1.dev1+g1234"}, "0.1.dev1"),
        ({"version": "0.33.0rc1"}, "0.33.0rc1"),
        ({"version": "nightly"}, "nightly"),
        ({"version": "0.33.0"}, "newer than the newest tested, 0.32"),
        ({"version": "1.0.0"}, "newer than the newest tested, 0.32"),
    ],
)
def test_what_cannot_be_told_is_a_caution_and_no_refusal(change: dict[str, object], words: str) -> None:
    found = examine(replace(GOOD, **change), NEEDS)  # type: ignore[arg-type]
    assert found.refusals == ()
    assert [words in str(each) for each in found.cautions] == [True]


@pytest.mark.parametrize("version", ["0.32.0", "0.31.0", "", "0.33.0rc1", "0.1.dev1"])
def test_delivery_in_place_is_refused_where_the_flag_sticks(version: str) -> None:
    found = examine(replace(GOOD, version=version), Needs("base", delivery=Delivery.IN_PLACE))
    assert ["0.33 or newer" in each.remedy for each in found.refusals] == [True]


@pytest.mark.parametrize("version", ["0.33.0", "0.33.0+cu130", "0.40.1", "1.0"])
def test_delivery_in_place_is_fine_from_0_33_on(version: str) -> None:
    assert examine(replace(GOOD, version=version), Needs("base", delivery=Delivery.IN_PLACE)).refusals == ()


def test_all_problems_are_told_at_once() -> None:
    found = examine(Facts("0.29.0", ("x",), False, False, None), NEEDS)
    assert len(found.refusals) == 4


def test_the_slots_are_those_of_a_whole_rollout() -> None:
    assert SLOTS == 4
    assert examine(replace(GOOD, lora_slots=2), Needs("base", slots=2)) == Findings()
