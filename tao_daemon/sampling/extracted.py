"""An answer taken out of its reasoning becomes a completion of the plain prompt: the tokens that say it. Pure.

The server never sampled those tokens, so the chat template makes them: the conversation with the answer as the
assistant's turn, minus the plain prompt's own tokens, up to the token that ends a turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

_TEMPLATE_FIELDS = (
    "tools", "chat_template", "chat_template_kwargs", "add_special_tokens", "mm_processor_kwargs", "media_io_kwargs",
)  # fmt: skip


def tokenize_body(request: Mapping[str, Any], *, model: str, answer: str) -> dict[str, Any]:
    """Asks vLLM's /tokenize for the tokens of the conversation that ends with `answer`."""
    body = {key: request[key] for key in _TEMPLATE_FIELDS if key in request}
    messages = [*request["messages"], {"role": "assistant", "content": answer}]
    return {**body, "model": model, "messages": messages, "add_generation_prompt": False}


def answer_tokens(
    prompt: Sequence[int], conversation: Sequence[int], ends: Set[int], limit: int
) -> tuple[int, ...] | None:
    """The answer's tokens, its end token included and what the template puts after that left out.

    None where the conversation does not begin with the prompt (the template renders a finished turn in another way,
    or tokens merge across the border), holds no end token or several, or the answer has more than `limit` tokens.
    """
    rest = tuple(conversation[len(prompt) :])
    places = [place for place, token in enumerate(rest) if token in ends]
    if tuple(conversation[: len(prompt)]) != tuple(prompt) or len(places) != 1:
        return None
    return rest[: places[0] + 1] if 0 < places[0] < limit else None


def is_sayable(answer: str | None, stop: Any) -> bool:
    """Whether the model could have given the answer by itself: it is not empty and holds none of the client's stop
    strings."""
    strings = [stop] if isinstance(stop, str) else list(stop or ())
    return bool(answer and answer.strip()) and not any(string and string in (answer or "") for string in strings)
