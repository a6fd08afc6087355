"""The same prompt, asked in another way; and where a strategy does not apply."""

from __future__ import annotations

from typing import Any

import pytest

from tao_daemon.domain.ports import Example
from tao_daemon.sampling.strategies import chain_of_thought, few_shot, instruction, structured, template, thinking

SYSTEM = {"role": "system", "content": "S"}
CHAT: dict[str, Any] = {"messages": [SYSTEM, {"role": "user", "content": "q"}]}


def example(name: str, text: str = "answer", content: Any = None, messages: Any = None) -> Example:
    shown = messages or [SYSTEM, {"role": "user", "content": content or f"question {name}"}]
    return Example(name, {"messages": shown}, text, reward=1.0)


def bare(name: str, prompt: Any) -> Example:
    return Example(name, {"prompt": prompt}, "!", reward=1.0)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (
            [{"role": "system", "content": "A"}, {"role": "user", "content": "q"}],
            [{"role": "system", "content": "A\n\nThink."}, {"role": "user", "content": "q"}],
        ),
        (
            [{"role": "user", "content": "q"}],
            [{"role": "system", "content": "Think."}, {"role": "user", "content": "q"}],
        ),
        (
            [{"role": "developer", "content": [{"type": "text", "text": "A"}]}],
            [{"role": "developer", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "Think."}]}],
        ),
    ],
)
def test_an_instruction_joins_the_system_message(messages: list[Any], expected: list[Any]) -> None:
    changed = instruction({"messages": messages, "tools": []}, "Think.")
    assert changed == {"messages": expected, "tools": []}


def test_an_instruction_goes_before_a_bare_prompt_and_nowhere_near_token_ids() -> None:
    assert instruction({"prompt": "q"}, "Think.") == {"prompt": "Think.\n\nq"}
    assert instruction({"prompt": [1, 2, 3]}, "Think.") is None


def test_thoughts_lose_what_would_cut_them_and_keep_the_rest() -> None:
    request = {**CHAT, "stop": ["\n"], "max_tokens": 5, "max_completion_tokens": 4, "tools": [1], "stop_token_ids": [7]}
    asked = chain_of_thought(request, "", "after:Answer:")
    assert asked is not None
    assert set(asked) == {"messages", "tools", "stop_token_ids"}
    assert asked["messages"][0]["content"] == f"S\n\n{thinking('after:Answer:')}"
    assert request["stop"] == ["\n"]


def test_thinking_names_the_mark_that_is_looked_for() -> None:
    assert '"Answer:"' in thinking("after:Answer:")
    assert "###" in thinking("after:###")
    assert '"' not in thinking("last_number")
    own = chain_of_thought(CHAT, "Reason.", "boxed")
    assert own is not None
    assert own["messages"][0]["content"] == "S\n\nReason."


def test_a_bare_prompt_gets_no_thoughts() -> None:
    assert chain_of_thought({"prompt": "q"}, "", "after:Answer:") is None


def test_examples_are_earlier_turns_before_the_last_user_message() -> None:
    request = {"messages": [SYSTEM, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                            {"role": "user", "content": "q"}]}  # fmt: skip
    found = few_shot("p", request, [example("x", "ax"), example("y", "ay"), example("z")], 2)
    assert found is not None
    body, shown = found
    assert shown == ("x", "y")
    assert [message["content"] for message in body["messages"]] == [
        "S", "a", "b", "question x", "ax", "question y", "ay", "q",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "unfit",
    [
        example("p"),
        example("other", " "),
        example("other", content="q"),
        example("other", messages=[{"role": "user", "content": "no system message"}]),
        example("other", messages=[{"role": "system", "content": "T"}, {"role": "user", "content": "x"}]),
        example("other", messages=[SYSTEM]),
        example("other", messages=[SYSTEM, {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"},
                                   {"role": "user", "content": "z"}]),
        bare("other", "q2"),
    ],
)  # fmt: skip
def test_unfit_examples_are_not_shown(unfit: Example) -> None:
    assert few_shot("p", CHAT, [unfit], 2) is None
    found = few_shot("p", CHAT, [unfit, example("x")], 1)
    assert found is not None
    assert found[1] == ("x",)


@pytest.mark.parametrize("key", ["tools", "response_format"])
def test_examples_with_other_tools_or_another_format_are_not_shown(key: str) -> None:
    other, own = {"type": "json_object"}, {"type": "text"}
    plain, unlike, like = example("x"), example("y"), example("z")
    unlike = Example("y", {**unlike.request, key: [other]}, "answer", reward=1.0)
    like = Example("z", {**like.request, key: [own]}, "answer", reward=1.0)
    found = few_shot("p", {**CHAT, key: [own]}, [plain, unlike, like], 3)
    assert found is not None
    assert found[1] == ("z",)
    bare_like = Example("b", {"prompt": "1+1=", key: [other]}, "2", reward=1.0)
    assert few_shot("p", {"prompt": "2+2="}, [bare_like], 2) is None
    nothing = few_shot("p", {**CHAT, key: None}, [plain], 1)
    assert nothing is not None, "null is as good as left out"


def test_examples_go_before_a_bare_prompt() -> None:
    found = few_shot(
        "p", {"prompt": "2+2="}, [bare("x", "1+1="), bare("y", [1, 2]), bare("z", "2+2="), example("c")], 4
    )
    assert found == ({"prompt": "1+1=!\n\n2+2="}, ("x",))
    assert few_shot("p", {"prompt": [1, 2]}, [bare("x", "1+1=")], 4) is None
    assert few_shot("p", {"messages": [SYSTEM]}, [example("x")], 4) is None


def test_a_constraint_is_the_files_schema_or_the_requests_own_format() -> None:
    schema = {"type": "object"}
    own = {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}
    assert structured(CHAT, schema) == {"structured_outputs": {"json": schema}}
    assert structured({**CHAT, "response_format": own}, schema) == {"structured_outputs": {"json": schema}}
    assert structured({**CHAT, "response_format": own}, None) == {"response_format": own}
    assert structured({"prompt": "q", "response_format": {"type": "json_object"}}, None) is not None
    for nothing in (CHAT, {**CHAT, "response_format": {"type": "text"}}, {**CHAT, "response_format": "json"}):
        assert structured(nothing, None) is None


def test_a_template_takes_the_place_of_the_last_user_message() -> None:
    request = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                            {"role": "user", "content": "{x} {prompt}"}, {"role": "tool", "content": "t"}]}  # fmt: skip
    found = template(request, "Q: {prompt}\nA, in {words}:")
    assert found is not None
    assert [message["content"] for message in found["messages"]] == ["a", "b", "Q: {x} {prompt}\nA, in {words}:", "t"]
    assert template({"prompt": "q"}, "<{prompt}>") == {"prompt": "<q>"}


def test_a_template_keeps_pictures_and_needs_text() -> None:
    picture = {"type": "image_url", "image_url": {"url": "u"}}
    parts = [{"type": "text", "text": "a"}, picture, {"type": "text", "text": "b"}]
    found = template({"messages": [{"role": "user", "content": parts}]}, "<{prompt}>")
    assert found == {"messages": [{"role": "user", "content": [picture, {"type": "text", "text": "<a\nb>"}]}]}
    assert template({"messages": [{"role": "user", "content": [picture]}]}, "<{prompt}>") is None
    assert template({"messages": [SYSTEM]}, "<{prompt}>") is None
    assert template({"prompt": [1]}, "<{prompt}>") is None
