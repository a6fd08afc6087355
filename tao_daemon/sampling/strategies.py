"""Exploration: the same prompt, asked in another way. Pure.

One function per type of strategy; each takes the client's request and gives what is asked instead, None where it does
not apply. Training conditions on the plain prompt all the same: what exploration finds becomes the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tao_daemon.domain.ports import Example

Body = dict[str, Any]

_SYSTEM_ROLES = ("system", "developer")
_AFTER = "after:"
_THINK = "First think step by step. Then {give} the final answer alone, exactly in the form that was asked for."
_CONSTRAINTS = ("json_schema", "json_object", "structural_tag")
_FORM = ("tools", "response_format")
_NOT_WHILE_THINKING = ("stop", "include_stop_str_in_output", "max_tokens", "max_completion_tokens")


def instruction(request: Mapping[str, Any], text: str) -> Body | None:
    """Adds an instruction. Chat: at the end of the first system message, or as a new one. Bare: before the prompt."""
    if "messages" in request:
        return {**request, "messages": _instructed(list(request["messages"]), text)}
    prompt = request.get("prompt")
    return {**request, "prompt": f"{text}\n\n{prompt}"} if isinstance(prompt, str) else None


def chain_of_thought(request: Mapping[str, Any], text: str, answer: str) -> Body | None:
    """Asks for the reasoning first. `text` "" asks in words that fit the extractor `answer`.

    Chat only: an extracted answer needs the chat template. The client's stop strings and length limits are left out:
    they are about the answer, and would cut the reasoning.
    """
    if "messages" not in request:
        return None
    asked = {key: value for key, value in request.items() if key not in _NOT_WHILE_THINKING}
    return instruction(asked, text or thinking(answer))


def thinking(answer: str) -> str:
    """The instruction to think whose answers the extractor `answer` finds."""
    give = f'write "{answer.removeprefix(_AFTER)}" and after it' if answer.startswith(_AFTER) else "give"
    return _THINK.format(give=give)


def few_shot(
    prompt_id: str, request: Mapping[str, Any], examples: Sequence[Example], most: int
) -> tuple[Body, tuple[str, ...]] | None:
    """Shows the first `most` fitting examples before the last user message, or before a bare prompt.

    Fitting: another prompt with the same system messages, tools and response format, of one user message or bare as
    this one is, and another text. Gives the identifiers of the prompts that are shown, too.
    """
    shown = [e for e in examples if e.prompt_id != prompt_id and e.text.strip() and _fits(e.request, request)][:most]
    body = _shown(request, shown) if shown else None
    return None if body is None else (body, tuple(example.prompt_id for example in shown))


def structured(request: Mapping[str, Any], schema: Mapping[str, Any] | None) -> Body | None:
    """The fields that constrain decoding: to `schema`, or to the request's own `response_format` without one."""
    if schema is not None:
        return {"structured_outputs": {"json": schema}}
    own = request.get("response_format")
    return {"response_format": own} if isinstance(own, Mapping) and own.get("type") in _CONSTRAINTS else None


def template(request: Mapping[str, Any], text: str) -> Body | None:
    """`text`, with {prompt} replaced by the last user message's text, in that message's place; or in a bare prompt's.

    Parts that are not text, such as images, stay.
    """
    if "messages" not in request:
        prompt = request.get("prompt")
        return {**request, "prompt": text.replace("{prompt}", prompt)} if isinstance(prompt, str) else None
    messages = list(request["messages"])
    place = _last_user(messages)
    content = None if place is None else _templated(messages[place].get("content"), text)
    if place is None or content is None:
        return None
    messages[place] = {**messages[place], "content": content}
    return {**request, "messages": messages}


def _instructed(messages: list[Mapping[str, Any]], text: str) -> list[Mapping[str, Any]]:
    for place, message in enumerate(messages):
        if message.get("role") in _SYSTEM_ROLES:
            content = _joined(message.get("content"), text)
            return [*messages[:place], {**message, "content": content}, *messages[place + 1 :]]
    return [{"role": "system", "content": text}, *messages]


def _joined(content: Any, text: str) -> Any:
    if isinstance(content, list):
        return [*content, {"type": "text", "text": text}]
    return f"{content}\n\n{text}" if content else text


def _fits(example: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
    # An answer to other tools, or in another form, shows what is wrong here.
    if any((example.get(key) or None) != (request.get(key) or None) for key in _FORM):
        return False
    if "messages" not in request:
        shown = example.get("prompt")
        return isinstance(shown, str) and bool(shown) and shown != request.get("prompt")
    # An answer in the middle of a conversation leans on turns that would have to be shown with it.
    turns = _turns(example)
    return (
        len(turns) == 1
        and turns[0].get("role") == "user"
        and bool(turns[0].get("content"))
        and _system(example) == _system(request)
        and all(turns[0].get("content") != turn.get("content") for turn in _turns(request))
    )


def _shown(request: Mapping[str, Any], examples: Sequence[Example]) -> Body | None:
    if "messages" not in request:
        prompt = request.get("prompt")
        if not isinstance(prompt, str):
            return None
        return {**request, "prompt": "".join(f"{e.request['prompt']}{e.text}\n\n" for e in examples) + prompt}
    messages = list(request["messages"])
    place = _last_user(messages)
    if place is None:
        return None
    turns = [
        turn
        for example in examples
        for turn in (*_turns(example.request), {"role": "assistant", "content": example.text})
    ]
    return {**request, "messages": [*messages[:place], *turns, *messages[place:]]}


def _turns(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [message for message in request.get("messages", ()) if message.get("role") not in _SYSTEM_ROLES]


def _system(request: Mapping[str, Any]) -> list[Any]:
    return [message.get("content") for message in request.get("messages", ()) if message.get("role") in _SYSTEM_ROLES]


def _last_user(messages: Sequence[Mapping[str, Any]]) -> int | None:
    return next((place for place in reversed(range(len(messages))) if messages[place].get("role") == "user"), None)


def _templated(content: Any, text: str) -> Any:
    """The message content with its text replaced; None where it has no text."""
    if isinstance(content, str):
        return text.replace("{prompt}", content)
    if not isinstance(content, list):
        return None
    texts = [part["text"] for part in content if isinstance(part.get("text"), str)]
    others = [part for part in content if not isinstance(part.get("text"), str)]
    return [*others, {"type": "text", "text": text.replace("{prompt}", "\n".join(texts))}] if texts else None
