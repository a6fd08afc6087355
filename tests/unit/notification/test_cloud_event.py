"""Filters, signatures, and heads read back."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest

from tao_daemon.domain.lifecycle import JournalHead
from tao_daemon.notification.cloud_event import encode, is_wanted, published_heads, signature


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        (("*",), True),
        (("rollout.*",), True),
        (("rollout.waiting_for_approval",), True),
        (("round.*", "undo.*"), False),
        (("rollout",), False),
        (("io.tao-daemon.rollout.*",), False),
    ],
)
def test_patterns_are_of_short_types(example: dict[str, Any], patterns: tuple[str, ...], wanted: bool) -> None:
    assert is_wanted(example, patterns) is wanted


def test_the_signature_is_what_a_receiver_computes(example: dict[str, Any]) -> None:
    body = encode(example)
    assert json.loads(body) == example
    assert signature(body, "s3cret") == "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()


def test_heads_are_read_back_for_one_source(example: dict[str, Any]) -> None:
    other = {**example, "source": "other"}
    lines = [encode(example).decode() + "\n", "\n", json.dumps(other)]
    head = JournalHead(41, example["data"]["journal"]["hash"])
    assert list(published_heads(lines, "tao-test")) == [head]
    assert list(published_heads(lines)) == [head, head]


@pytest.mark.parametrize("line", ["not json", "[]", "{}", '{"data": {"journal": {"seq": 1}}, "source": "s"}'])
def test_a_line_that_is_none_of_ours_is_named(example: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match="line 2 is no event"):
        list(published_heads([encode(example).decode(), line]))
