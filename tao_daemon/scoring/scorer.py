"""Scores completions with the configured scorers and with what the request itself demands.

A text that any of its scorers fails on has no reward. Checks run in worker threads: the loop never waits.
config → verifiers built and checked → prompt and texts → rewards
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tao_daemon.config import Match, ScorerConfig
from tao_daemon.domain.errors import ConfigError
from tao_daemon.domain.prompt import Prompt
from tao_daemon.scoring.combine import absolute, within_group
from tao_daemon.scoring.json_verifier import JsonVerifier
from tao_daemon.scoring.matching import matches
from tao_daemon.scoring.python_verifier import PythonVerifier, import_function
from tao_daemon.scoring.regex_verifier import RegexVerifier
from tao_daemon.scoring.request_verifier import request_verifier
from tao_daemon.scoring.verifier import Failure, Score, Verifier

REQUEST_SCORER = "request.response_format"
"""Name of the verifier that a request brings with it; no configured scorer can have it."""

Check = Callable[[Mapping[str, Any], str], Awaitable[Score]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    weight: float
    match: Match
    check: Check


class ConfiguredScorer:
    """Implements `Scorer`. Raises ConfigError for a scorer that cannot work. Use from one event loop;
    `accepts` and `names` are safe from any thread."""

    def __init__(self, scorers: Sequence[ScorerConfig], *, min_spread: float) -> None:
        """`min_spread`: smallest spread of raw scores in a group that counts as a difference."""
        self._entries = tuple(_entry(scorer) for scorer in scorers)
        self._min_spread = min_spread

    def accepts(self, prompt: Prompt) -> bool:
        return bool(self._applying(prompt))

    def names(self, prompt: Prompt) -> tuple[str, ...]:
        return tuple(entry.name for entry in self._applying(prompt))

    async def score(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None]:
        """Rewards for training, relative to the group where several scorers apply."""

        def combine(rows: list[list[float]], weights: list[float]) -> list[float]:
            return within_group(rows, weights, min_spread=self._min_spread)

        return await self._score(prompt, texts, combine)

    async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None]:
        """Scores for evaluation, each for its text alone: the weighted mean of raw scores."""
        return await self._score(prompt, texts, absolute)

    def _applying(self, prompt: Prompt) -> list[_Entry]:
        entries = [entry for entry in self._entries if matches(prompt, **entry.match.model_dump())]
        own = request_verifier(prompt.request)
        return entries if own is None else [*entries, _Entry(REQUEST_SCORER, 1.0, Match(), _in_thread(own))]

    async def _score(
        self,
        prompt: Prompt,
        texts: Sequence[str],
        combine: Callable[[list[list[float]], list[float]], list[float]],
    ) -> list[float | None]:
        entries = self._applying(prompt)
        if not entries:
            raise ValueError(f"no scorer matches prompt {prompt.id}; ask accepts() before")
        table = [[await entry.check(prompt.request, text) for text in texts] for entry in entries]
        for entry, row in zip(entries, table, strict=True):
            _report_failures(entry.name, prompt.id, row)
        good = [place for place in range(len(texts)) if not any(isinstance(row[place], Failure) for row in table)]
        if not good:
            return [None] * len(texts)
        rewards = combine([[float(row[place]) for place in good] for row in table], [e.weight for e in entries])
        found = dict(zip(good, rewards, strict=True))
        return [found.get(place) for place in range(len(texts))]


def _report_failures(name: str, prompt_id: str, row: Sequence[Score]) -> None:
    failures = Counter(score.value for score in row if isinstance(score, Failure))
    if failures:
        _log.warning("scorer failed", extra={"scorer": name, "prompt_id": prompt_id, "failures": dict(failures)})


def _entry(config: ScorerConfig) -> _Entry:
    try:
        return _Entry(config.name, config.weight, config.match, _check(config))
    except ValueError as error:
        raise ConfigError(f"scorer {config.name!r} ({config.type}): {error}") from None


def _check(config: ScorerConfig) -> Check:
    match config.type:
        case "json_schema":
            assert config.schema_file is not None
            schema = _read_json(config.schema_file)
            return _in_thread(JsonVerifier(schema, timeout_seconds=config.timeout_seconds))
        case "regex":
            assert config.pattern is not None
            return _in_thread(RegexVerifier(config.pattern, timeout_seconds=config.timeout_seconds))
        case "python":
            assert config.callable is not None
            function = import_function(config.callable)
            return PythonVerifier(function, timeout_seconds=config.timeout_seconds).check


def _in_thread(verifier: Verifier) -> Check:
    async def check(request: Mapping[str, Any], text: str) -> Score:
        return await asyncio.to_thread(verifier.check, text)

    return check


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read schema_file {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"schema_file {path} is not JSON: {error}") from None
