"""docs/events.md lists every type with what it means, and its example is one that could be told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator

from tao_daemon.domain.events import AdapterVerified
from tao_daemon.domain.lifecycle import TYPES
from tao_daemon.notification.cloud_event import published_heads
from tao_daemon.notification.slack import slack_message
from tests.machine_plays import a_round, pairs, traffic

DOCS = (Path(__file__).parents[3] / "docs" / "events.md").read_text()
SCHEMA = json.loads((Path(__file__).parent / "cloudevents-1.0.schema.json").read_text())


def test_every_type_is_listed_with_its_meaning() -> None:
    assert dict(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| (.+) \|$", DOCS, re.MULTILINE)) == dict(TYPES)


def test_the_example_has_the_fields_of_the_real_one(make_play: Any) -> None:
    play = make_play()
    play(*a_round(1, "a1"))
    (told,) = play(AdapterVerified("a1", 1), pairs("a1", 64, 0.3), traffic("a1"))
    (text,) = re.findall(r"```json\n(.+?)```", DOCS, re.DOTALL)
    example = json.loads(text)
    assert list(Draft7Validator(SCHEMA).iter_errors(example)) == []
    assert set(example) == set(told)
    assert set(example["data"]) == set(told["data"])
    assert set(example["data"]["evidence"]) == set(told["data"]["evidence"])
    assert [head.seq for head in published_heads([json.dumps(example)])] == [212]
    assert slack_message(example)["blocks"][0]["text"]["text"].endswith("canary, 5% of the conversations")


def test_every_field_is_described(make_play: Any) -> None:
    described = set(
        re.findall(r"`([a-z_]+)`", "\n".join(re.findall(r"^\| (`[^|]+) \| .+ \| .+ \|$", DOCS, re.MULTILINE)))
    )
    play = make_play()
    told = []
    for event in a_round(1, "a1"):
        told += play(event)
    assert {name for event in told for name in event["data"]} <= described
