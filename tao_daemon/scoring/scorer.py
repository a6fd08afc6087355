"""Scores completions with the configured scorers and with what the request itself demands.

A text that any of its scorers fails on has no reward. `score` sees a prompt's completions together, `absolute` the
answers that a gate compares. A scorer whose server has not answered `MAX_UNANSWERED` calls in a row is down: that is
no property of the texts, and both raise UpstreamError for who can wait, until a call is answered again.
config → graders built and checked → prompt and texts → rewards → close
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp

from tao_daemon.config import Match, ScorerConfig
from tao_daemon.domain.errors import ConfigError, UpstreamError
from tao_daemon.domain.prompt import Prompt
from tao_daemon.domain.signals import Emit, ScorerFailed, discard
from tao_daemon.scoring.building import build_grader
from tao_daemon.scoring.combine import absolute, within_group
from tao_daemon.scoring.graders import by_own_format
from tao_daemon.scoring.matching import matches
from tao_daemon.scoring.verifier import NO_ANSWER, Failure, Grader, Score

REQUEST_SCORER = "request.response_format"
"""Name of the verifier that a request brings with it; no configured scorer can have it."""

NO_SCORER = "none"
UNMATCHED = "unmatched"
"""Of ScorerFailed: no scorer matches the prompt, so nobody gives its texts a score."""
MAX_UNANSWERED = 8
"""Calls of a scorer in a row that its server leaves unanswered before it counts as down."""

Combine = Callable[[list[list[float]], list[float]], list[float]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    weight: float
    match: Match
    grader: Grader


_Row = tuple[_Entry, Sequence[Score]]


class ConfiguredScorer:
    """Implements `Scorer`. Raises ConfigError for a scorer that cannot work. Use from one event loop;
    `accepts`, `judges` and `names` are safe from any thread."""

    def __init__(
        self,
        scorers: Sequence[ScorerConfig],
        *,
        min_spread: float,
        session: aiohttp.ClientSession | None = None,
        emit: Emit = discard,
        beside: ConfiguredScorer | None = None,
    ) -> None:
        """`min_spread`: smallest spread of raw scores in a group that counts as a difference. `session` stays the
        caller's; without one, a scorer that asks a server cannot work. Entries that `beside` has too are not built
        again: a reward model is loaded once, and who fooled a judge is known to both."""
        built = beside.graders if beside else {}
        self.graders: dict[ScorerConfig, Grader] = {
            config: built.get(config) or _grader(config, session, emit) for config in scorers
        }
        own = _Entry(REQUEST_SCORER, 1.0, Match(), by_own_format())
        entries = (_Entry(each.name, each.weight, each.match, grader) for each, grader in self.graders.items())
        self._entries = (*entries, own)
        self._min_spread = min_spread
        self._emit = emit

    def accepts(self, prompt: Prompt) -> bool:
        return bool(self._applying(prompt))

    def judges(self, prompt: Prompt) -> bool:
        return any(entry.grader.is_absolute for entry in self._applying(prompt))

    def names(self, prompt: Prompt) -> tuple[str, ...]:
        return tuple(entry.name for entry in self._applying(prompt))

    async def score(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None]:
        """Rewards for training, relative to the group where several scorers apply."""
        rows = await self._graded(prompt, texts)
        self._report(prompt, len(texts), rows)
        return _rewards(len(texts), rows, self._within_group)

    async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None]:
        """Scores for evaluation: the weighted mean of raw scores. None too where no scorer says anything of so few
        texts."""
        entries = await self._asked(prompt)
        table = await asyncio.gather(*[entry.grader.absolute(prompt, texts) for entry in entries])
        rows = [(entry, row) for entry, row in zip(entries, table, strict=True) if row is not None]
        _wait_for_servers(rows)
        if rows or not entries:
            self._report(prompt, len(texts), rows)
        return _rewards(len(texts), rows, absolute)

    async def preview(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None] | None:
        """Reports no failures: who is previewed is scored later."""
        if not all(entry.grader.is_free for entry in await self._asked(prompt)):
            return None
        return _rewards(len(texts), await self._graded(prompt, texts), self._within_group)

    async def close(self) -> None:
        """End what scorers hold, processes of their own among it. Idempotent."""
        for entry in self._entries:
            await entry.grader.close()

    def _applying(self, prompt: Prompt) -> list[_Entry]:
        return [
            entry
            for entry in self._entries
            if matches(prompt, **entry.match.model_dump()) and entry.grader.applies(prompt)
        ]

    async def _asked(self, prompt: Prompt) -> list[_Entry]:
        # Whether one applies may take a schema to compile, or a pattern to match.
        return await asyncio.to_thread(self._applying, prompt)

    async def _graded(self, prompt: Prompt, texts: Sequence[str]) -> list[_Row]:
        entries = await self._asked(prompt)
        table = await asyncio.gather(*[entry.grader.grade(prompt, texts) for entry in entries])
        rows: list[_Row] = list(zip(entries, table, strict=True))
        _wait_for_servers(rows)
        return rows

    def _within_group(self, rows: list[list[float]], weights: list[float]) -> list[float]:
        return within_group(rows, weights, min_spread=self._min_spread)

    def _report(self, prompt: Prompt, texts: int, rows: Sequence[_Row]) -> None:
        if not rows and texts:
            self._report_failures(NO_SCORER, prompt.id, Counter({UNMATCHED: texts}))
        for entry, row in rows:
            failures = Counter(score.value for score in row if isinstance(score, Failure))
            self._report_failures(entry.name, prompt.id, failures)

    def _report_failures(self, name: str, prompt_id: str, failures: Counter[str]) -> None:
        for kind, count in failures.items():
            self._emit(ScorerFailed(name, kind, count))
        if failures:
            extra = {"scorer": name, "prompt_id": prompt_id, "failures": dict(failures)}
            _log.warning("scorer failed", extra=extra)


def _rewards(texts: int, rows: Sequence[_Row], combine: Combine) -> list[float | None]:
    good = [place for place in range(texts) if not any(isinstance(row[place], Failure) for _, row in rows)]
    if not good or not rows:
        return [None] * texts
    table = [[float(row[place]) for place in good] for _, row in rows]
    found = dict(zip(good, combine(table, [entry.weight for entry, _ in rows]), strict=True))
    return [found.get(place) for place in range(texts)]


def _wait_for_servers(rows: Sequence[_Row]) -> None:
    """Raises UpstreamError for a scorer whose server is down."""
    for entry, row in rows:
        if entry.grader.unanswered >= MAX_UNANSWERED and row and all(score in NO_ANSWER for score in row):
            raise UpstreamError(
                f"the server of scorer {entry.name!r} left its last {entry.grader.unanswered} calls without an answer; "
                "start it, or check its entry in [[scorers]]"
            )


def _grader(config: ScorerConfig, session: aiohttp.ClientSession | None, emit: Emit) -> Grader:
    try:
        return build_grader(config, session, emit)
    except (ValueError, OSError) as error:
        raise ConfigError(f"scorer {config.name!r} ({config.type}): {error}") from None
