"""What is asked for a prompt: the plain prompt, and what every configured strategy makes of it.

Schema files and extractors are read once, at the start: a wrong one is a ValueError then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tao_daemon.clients.extraction import Extract, text_extractor
from tao_daemon.config import Sampling, Strategy
from tao_daemon.domain.completion import PLAIN
from tao_daemon.domain.ports import Example
from tao_daemon.domain.prompt import Prompt
from tao_daemon.sampling.requests import length_limit
from tao_daemon.sampling.strategies import chain_of_thought, few_shot, instruction, structured, template


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for completions of a prompt under one strategy."""

    strategy: str
    completions: int
    request: Mapping[str, Any]
    max_tokens: int
    seed_key: str
    """Tells this request's random numbers from those of the prompt's others."""
    shaping: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the request that change the distribution: a temperature, a constraint."""
    examples: tuple[str, ...] = ()
    """Prompts that are shown."""
    extract: Extract | None = None
    """Finds the answer in each completion; None where the completion is the answer."""


_Build = Callable[[Prompt, Sequence[Example], Ask], Ask | None]
"""Changes the ask of a plain prompt into a strategy's; None where the strategy does not apply."""


class Asks:
    """For every prompt alike; holds nothing of any."""

    def __init__(self, config: Sampling) -> None:
        """Raises ValueError, naming the strategy, for a schema file or an extractor that cannot be used."""
        self._max_tokens = config.max_tokens
        self._strategies = [(strategy, _build(strategy, config.max_tokens)) for strategy in config.strategies]

    def plain(self, prompt: Prompt, completions: int, *, before: int = 0) -> Ask:
        """The prompt as it was received; `before`: plain completions that earlier requests asked for."""
        key = PLAIN if not before else f"{PLAIN}\x00{before}"
        return Ask(PLAIN, completions, prompt.request, self._max_tokens, key)

    def exploring(self, prompt: Prompt, examples: Callable[[Prompt], Sequence[Example]]) -> list[Ask]:
        """One per strategy that matches and applies."""
        matching = [
            (strategy, build)
            for strategy, build in self._strategies
            if strategy.match_system_sha256 in (None, prompt.system_digest)
        ]
        shown = examples(prompt) if any(strategy.type == "few_shot" for strategy, _ in matching) else ()
        asks = [build(prompt, shown, self._exploring(prompt, strategy)) for strategy, build in matching]
        return [ask for ask in asks if ask is not None]

    def _exploring(self, prompt: Prompt, strategy: Strategy) -> Ask:
        shaping = {"temperature": strategy.temperature}
        return Ask(strategy.name, strategy.completions, prompt.request, self._max_tokens, strategy.name, shaping)


def _build(strategy: Strategy, max_tokens: int) -> _Build:
    match strategy.type:
        case "instruction":
            return lambda prompt, _, ask: _with_request(ask, instruction(prompt.request, strategy.instruction))
        case "template":
            return lambda prompt, _, ask: _with_request(ask, template(prompt.request, strategy.template))
        case "chain_of_thought":
            return _thinking(strategy, max_tokens)
        case "structured":
            return _structured(strategy)
        case "few_shot":
            return lambda prompt, examples, ask: _with_examples(ask, prompt, examples, strategy.examples)


def _with_request(ask: Ask, request: Mapping[str, Any] | None) -> Ask | None:
    return None if request is None else replace(ask, request=request)


def _thinking(strategy: Strategy, max_tokens: int) -> _Build:
    try:
        extract = text_extractor(strategy.answer)
    except ValueError as error:
        raise ValueError(f"sampling.strategies {strategy.name!r}: answer: {error}") from None

    def build(prompt: Prompt, _: Sequence[Example], ask: Ask) -> Ask | None:
        request = chain_of_thought(prompt.request, strategy.instruction, strategy.answer)
        if request is None:
            return None
        # The reasoning gets as many tokens as the longest answer, and the answer its own beside them.
        limit = max_tokens + length_limit(prompt.request, max_tokens)
        return replace(ask, request=request, max_tokens=limit, extract=extract)

    return build


def _structured(strategy: Strategy) -> _Build:
    schema = None if strategy.schema_file is None else _schema(strategy.name, strategy.schema_file)

    def build(prompt: Prompt, _: Sequence[Example], ask: Ask) -> Ask | None:
        constraint = structured(prompt.request, schema)
        return None if constraint is None else replace(ask, shaping={**ask.shaping, **constraint})

    return build


def _schema(name: str, path: Path) -> Mapping[str, Any]:
    try:
        schema = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"sampling.strategies {name!r}: schema_file {path}: {error}") from None
    if not isinstance(schema, dict):
        raise ValueError(f"sampling.strategies {name!r}: schema_file {path} holds no JSON object; give a JSON Schema")
    return schema


def _with_examples(ask: Ask, prompt: Prompt, examples: Sequence[Example], most: int) -> Ask | None:
    found = few_shot(prompt.id, prompt.request, examples, most)
    return None if found is None else replace(ask, request=found[0], examples=found[1])
