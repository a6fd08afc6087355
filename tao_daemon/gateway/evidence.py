"""What each arm of a rollout did, per generation of routes: the evidence of a canary and of baking. No I/O.

Invariants: a conversation is counted once in each arm it was seen in, and its first failure of each kind once over
both arms, for as long as the salt stands; memory is bounded, a forgotten conversation counts as a new one.

bound → (one version answers) → ended
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field

from tao_daemon.domain.rollout import Routes
from tao_daemon.domain.traffic import KEPT_GENERATIONS, ArmCounts, SplitCounts

MAX_CONVERSATIONS = 200_000
"""Conversations remembered, the latest ones: some 30 MB."""
_ERROR, _SLOW, _TRUNCATED, _IN_INCUMBENT, _IN_CANDIDATE = 1, 2, 4, 8, 16


@dataclass(slots=True)
class _Arm:
    requests: int = 0
    conversations: int = 0
    errors: int = 0
    slow: int = 0
    truncated: int = 0


@dataclass(slots=True)
class _Split:
    incumbent: _Arm = field(default_factory=_Arm)
    candidate: _Arm = field(default_factory=_Arm)


class _Seen:
    """What is known of the conversations under one salt: five bits each."""

    def __init__(self, salt: str, limit: int) -> None:
        self.salt = salt
        self._limit = limit
        self._bits: OrderedDict[int, int] = OrderedDict()

    def first(self, conversation: int, bits: int) -> int:
        """Those of `bits` that are new for the conversation; they no longer are afterwards."""
        known = self._bits.get(conversation, 0)
        self._bits[conversation] = known | bits
        self._bits.move_to_end(conversation)
        if len(self._bits) > self._limit:
            self._bits.popitem(last=False)
        return bits & ~known


@dataclass(frozen=True, slots=True)
class Bound:
    """A request on its way: it keeps the counts and the salt's memory it was bound under, whatever comes next."""

    arm: _Arm
    seen: _Seen
    conversation: int

    def ended(self, *, error: bool, slow: bool, truncated: bool) -> None:
        """How it ended; nothing that is the client's doing is a failure."""
        bits = error * _ERROR | slow * _SLOW | truncated * _TRUNCATED
        if bits:
            first = self.seen.first(self.conversation, bits)
            self.arm.errors += bool(first & _ERROR)
            self.arm.slow += bool(first & _SLOW)
            self.arm.truncated += bool(first & _TRUNCATED)


class Evidence:
    """Counts of one gateway; `splits` is what the daemon gets."""

    def __init__(self, max_conversations: int = MAX_CONVERSATIONS) -> None:
        self._limit = max_conversations
        self._seen = _Seen("", max_conversations)
        self._splits: dict[int, _Split] = {}

    def bind(self, routes: Routes, conversation: int, *, to_candidate: bool) -> Bound:
        """Count a request. `conversation` identifies it under `routes.salt`, which is not empty."""
        assert routes.salt
        if self._seen.salt != routes.salt:
            self._seen = _Seen(routes.salt, self._limit)
        split = self._splits.get(routes.generation) or self._open(routes.generation)
        arm, bit = (split.candidate, _IN_CANDIDATE) if to_candidate else (split.incumbent, _IN_INCUMBENT)
        arm.requests += 1
        arm.conversations += bool(self._seen.first(conversation, bit))
        return Bound(arm, self._seen, conversation)

    def splits(self) -> Mapping[int, SplitCounts]:
        """The counts by generation, for the latest ones."""
        return {
            generation: SplitCounts(ArmCounts(*astuple(split.incumbent)), ArmCounts(*astuple(split.candidate)))
            for generation, split in self._splits.items()
        }

    def _open(self, generation: int) -> _Split:
        split = self._splits[generation] = _Split()
        if len(self._splits) > KEPT_GENERATIONS:
            del self._splits[min(self._splits)]
        return split
