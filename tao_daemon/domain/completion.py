"""Completions: the sampled answers to one prompt, and the rewards they earned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PLAIN = "plain"
"""The strategy that asks the prompt as it was received."""


REFUSED = "refused"
"""Finish reason of an answer that the server would not give. Mostly the prompt's fault; but where the server reads what
the model says, as for a required tool, it may be the model's."""

UNANSWERED = "unanswered"
"""Finish reason of an answer that failed twice, retries included, while the server answered others."""

CUT_OFF = "length"
"""OpenAI's finish reason for an answer that met its length limit."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer, as the server produced it: text is never re-tokenised."""

    index: int
    """Position within the group, unique there."""
    strategy: str
    text: str
    token_ids: tuple[int, ...]
    """Completion tokens, the end token included when the server emitted it."""
    logprobs: tuple[float, ...]
    """Behaviour log-probability (nats) of each token, given the prompt that was asked; same length, but empty for an
    extracted answer."""
    finish_reason: str
    extracted: bool = False
    """The answer taken out of a longer completion: the server never sampled it, and its tokens were made once, through
    the chat template with its end token."""

    @property
    def is_plain(self) -> bool:
        return self.strategy == PLAIN


@dataclass(frozen=True, slots=True)
class CompletionGroup:
    """All completions of one prompt. `prompt_token_ids` are those of the plain prompt, always."""

    prompt_id: str
    prompt_token_ids: tuple[int, ...]
    completions: tuple[Completion, ...]
    examples: tuple[str, ...] = ()
    """Other prompts whose completions were shown to a strategy: they are part of the lineage."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer for evaluation: text only."""

    text: str
    completion_tokens: int
    finish_reason: str

    @property
    def is_none(self) -> bool:
        """The server gave no answer."""
        return self.finish_reason in (REFUSED, UNANSWERED)


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """A group with one reward in [0, 1] per completion, in the order of `group.completions`."""

    group: CompletionGroup
    rewards: tuple[float, ...]
    scorers: tuple[str, ...]

    @property
    def spread(self) -> float:
        """Largest minus smallest reward over all completions: 0 teaches nothing."""
        return max(self.rewards) - min(self.rewards) if self.rewards else 0.0


def client_limit(request: Mapping[str, Any]) -> int | None:
    """The completion length, in tokens, that the client asked for."""
    limits = [request.get(key) for key in ("max_completion_tokens", "max_tokens")]
    return min((n for n in limits if isinstance(n, int) and not isinstance(n, bool) and n > 0), default=None)


def is_cut_by_client(request: Mapping[str, Any], sampling_limit: int) -> bool:
    """Whose limit a cut-off completion met: the client's own, or only our `sampling_limit` (tokens)."""
    limit = client_limit(request)
    return limit is not None and limit <= sampling_limit
