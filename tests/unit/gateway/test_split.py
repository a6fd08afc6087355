"""The canary split: any gateway agrees, a conversation stays, a growing share takes nobody back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.gateway.split import identity, place, within

fractions = st.floats(0.0, 1.0)


def chat(*messages: tuple[str, Any], **rest: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in messages], **rest}


def test_the_place_of_a_conversation_is_fixed_for_every_gateway_and_release() -> None:
    # blake2b of the salt, a zero byte and the identity; its first 8 bytes, big-endian.
    assert place("salt", b"id:42") == 15730451974693111253
    assert place("salt", identity("42", {})) == place("salt", b"id:42")


@given(st.text(max_size=8), st.binary(max_size=40), fractions, fractions)
def test_a_growing_fraction_takes_no_conversation_back(salt: str, conversation: bytes, one: float, two: float) -> None:
    small, large = sorted((one, two))
    where = place(salt, conversation)
    assert within(large, where) or not within(small, where)
    assert within(1.0, where)
    assert not within(0.0, where)


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.25, 0.5, 0.9])
def test_the_share_is_the_fraction_and_each_salt_draws_anew(fraction: float) -> None:
    count = 20_000
    arms = [[within(fraction, place(salt, b"%d" % number)) for number in range(count)] for salt in ("a", "b")]
    for arm in arms:
        assert sum(arm) / count == pytest.approx(fraction, abs=4 * (fraction * (1 - fraction) / count) ** 0.5)
    both = sum(a and b for a, b in zip(*arms, strict=True)) / count
    assert both == pytest.approx(fraction**2, abs=0.015), "independent of the other salt's"


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool"]), st.text()), max_size=5), st.integers())
def test_later_turns_and_parameters_do_not_change_the_identity(later: list[tuple[str, str]], seed: int) -> None:
    start = (("system", "Be brief."), ("user", "Where is it?"))
    assert identity(None, chat(*start, *later, seed=seed)) == identity(None, chat(*start))


def test_what_began_differently_is_another_conversation() -> None:
    parts = [{"type": "text", "text": "Hello"}]
    bodies: list[dict[str, Any]] = [
        chat(("user", "Hello")),
        chat(("user", "Hello!")),
        chat(("system", "Hello")),
        chat(("system", "Be brief."), ("user", "Hello")),
        chat(("user", parts)),
        {"prompt": "Hello"},
        {"prompt": ["Hello"]},
        {},
    ]
    assert len({identity(None, body) for body in bodies}) == len(bodies)


def test_a_header_decides_over_the_content_and_cannot_pose_as_a_digest() -> None:
    body = chat(("user", "Hello"))
    assert identity("7", body) == identity("7", {})
    assert identity("", body) == identity(None, body)
    assert identity(identity(None, body).decode("latin-1"), body) != identity(None, body)


@given(st.text(min_size=2048, max_size=2100), st.text())
def test_a_growing_prompt_is_the_same_conversation(beginning: str, more: str) -> None:
    assert identity(None, {"prompt": beginning + more}) == identity(None, {"prompt": beginning})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.none() | st.text(), json_values, json_values)
def test_whatever_json_a_client_sends_has_an_identity(header: str | None, messages: Any, prompt: Any) -> None:
    assert identity(header, {"messages": messages, "prompt": prompt})
    assert identity(None, {"messages": [{"role": "user", "content": "\ud800"}]})
    assert identity(None, {"prompt": "\ud800"})
