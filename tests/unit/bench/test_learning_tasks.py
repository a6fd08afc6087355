"""The tasks of the proof table: splits that share nothing, a gold answer that is right, rewards that know no truth."""

from __future__ import annotations

import dataclasses
import json
from itertools import combinations

import pytest

from bench.learning.tasks import TASKS, arithmetic, extraction, formatting
from bench.learning.tasks.task import Item, Split, Task

NAMES = sorted(TASKS)
COUNT = 160


def _request(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.fixture(params=NAMES)
def task(request: pytest.FixtureRequest) -> Task:
    return TASKS[request.param]


def test_hundreds_of_distinct_prompts(task: Task) -> None:
    for split in Split:
        items = task.items(split, 0, COUNT)
        assert len({item.text for item in items}) == COUNT


def test_no_prompt_is_in_two_splits_whatever_their_seeds(task: Task) -> None:
    texts = {split: {item.text for seed in range(3) for item in task.items(split, seed, COUNT)} for split in Split}
    for one, other in combinations(Split, 2):
        assert not texts[one] & texts[other]


def test_no_answer_to_a_training_prompt_answers_a_held_out_one() -> None:
    """By content, not by text alone: names, cities and codes of an extraction are never those of another split."""
    values = {
        split: {value for item in TASKS["extraction"].items(split, 0, COUNT) for value in item.facts.values()}
        for split in Split
    }
    for one, other in combinations(Split, 2):
        assert not values[one] & values[other]


def test_no_sum_is_trained_the_other_way_round() -> None:
    def operands(item: Item) -> tuple[str, frozenset[str]]:
        left, sign, right = item.gold.partition(" = ")[0].split()
        return sign, frozenset((left, right))

    asked = {split: set(map(operands, TASKS["arithmetic"].items(split, 0, COUNT))) for split in Split}
    for one, other in combinations(Split, 2):
        assert not asked[one] & asked[other]


def test_the_same_seed_gives_the_same_items(task: Task) -> None:
    assert task.items(Split.TRAIN, 3, 20) == task.items(Split.TRAIN, 3, 20)
    assert task.items(Split.TRAIN, 3, 20) != task.items(Split.TRAIN, 4, 20)


def test_rounds_take_up_where_the_last_one_ended(task: Task) -> None:
    whole = task.items(Split.TRAIN, 1, 24)
    assert task.items(Split.TRAIN, 1, 12, first=12) == whole[12:]
    ids = [prompt.id for prompt in task.prompts(Split.TRAIN, 1, whole)]
    assert [p.id for p in task.prompts(Split.TRAIN, 1, whole[12:], first=12)] == ids[12:]


def test_too_few_prompts_are_said_so(task: Task) -> None:
    (only,) = task.items(Split.TRAIN, 0, 1)
    poor = dataclasses.replace(task, draw=lambda rng, split: only)
    with pytest.raises(ValueError, match="only 1 distinct prompts in DEV"):
        poor.items(Split.DEV, 0, 2)


def test_gold_answers_are_right(task: Task) -> None:
    for split in Split:
        assert {task.truth(item, item.gold) for item in task.items(split, 0, COUNT)} == {1.0}


def test_empty_and_parroted_answers_are_wrong(task: Task) -> None:
    for item in task.items(Split.HELD_OUT, 0, 40):
        assert task.truth(item, "") == 0.0
        assert task.truth(item, item.text) == 0.0


def test_gold_answers_of_an_extraction_meet_its_schema() -> None:
    schema = json.loads(extraction.TASK.scorers[0].schema_file.read_text())  # type: ignore[union-attr]
    from tao_daemon.scoring.json_verifier import JsonVerifier

    verifier = JsonVerifier(schema, timeout_seconds=5.0)
    assert {verifier.check(item.gold) for item in TASKS["extraction"].items(Split.TRAIN, 0, 40)} == {1.0}


def test_an_extraction_is_right_field_by_field() -> None:
    (item,) = TASKS["extraction"].items(Split.TRAIN, 0, 1)
    wrong = json.dumps({**item.facts, "city": "Paris"})
    assert TASKS["extraction"].truth(item, wrong) == pytest.approx(2 / 3)
    assert TASKS["extraction"].truth(item, json.dumps({"name": item.facts["name"]})) == 0.0
    assert TASKS["extraction"].truth(item, f"Here it is: {item.gold}") == 0.0


def test_grounded_knows_the_mail_and_not_the_truth() -> None:
    mail = 'Mail: "Jo Stone from Bonn, order XY-1000, not AB-2000."\n\nWrite only the JSON object'
    good = {"name": "Jo Stone", "city": "Bonn", "code": "AB-2000"}
    assert extraction.grounded(_request(mail), json.dumps(good)) == 1.0
    assert extraction.grounded(_request(mail), json.dumps({**good, "city": "Rome"})) == pytest.approx(2 / 3)
    assert extraction.grounded(_request(mail), "no JSON") == 0.0
    assert extraction.grounded(_request(mail), json.dumps({**good, "name": ["Jo Stone"]})) == pytest.approx(2 / 3)
    assert extraction.grounded(_request(mail), "[" * 100_000) == 0.0


@pytest.mark.parametrize(
    ("answer", "right"),
    [("7 + 5 = 12", 1.0), ("It is 12.", 1.0), ("12, or rather 13", 0.0), ("twelve", 0.0), ("5 + 7", 0.0)],
)
def test_arithmetic_reads_the_last_number(answer: str, right: float) -> None:
    assert arithmetic.TASK.truth(Item(_request("What is 7 + 5?"), "", {"value": 12}), answer) == right


@pytest.mark.parametrize(
    ("prompt", "answer", "share"),
    [
        ("Write one sentence about rain. Begin with the words 'Long ago'.", "Long ago it rained.", 1.0),
        ("Write one sentence about rain. Begin with the words 'Long ago'.", "It rained. Long ago.", 0.0),
        ("Write one sentence about rain. Begin with the words 'Long ago'.", "Long ago it rained. Much.", 0.5),
        ("Write one sentence about rain in lowercase letters only, with at most 4 words.", "rain falls.", 1.0),
        ("Write one sentence about rain in lowercase letters only, with at most 4 words.", "Rain falls.", 2 / 3),
        ("that contains the word 'amber', with at most 4 words.", "Amber rain falls.", 1.0),
        ("that contains the word 'amber', with at most 4 words.", "Ambergris rain falls.", 0.5),
        ("Write one sentence about rain with at most 9 words. End with '!'", "Rain! How nice!", 2 / 3),
        ("Write one sentence about rain with at most 9 words. End with '!'", " ", 0.0),
    ],
)
def test_constraints_are_read_from_the_prompt(prompt: str, answer: str, share: float) -> None:
    assert formatting.held(_request(prompt), answer) == pytest.approx(share)
