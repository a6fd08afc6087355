"""Shared-prefix packing: the completions of one prompt in one sequence, the prompt computed once.

Pure index arithmetic. A pack is [prompt, y₁ … y_G] with positions that restart after the prompt for every
completion and a block mask: a completion sees the prompt and itself. The last token of a completion predicts
nothing and is left out. Loss and gradient equal those of G padded sequences.

group → packs of at most `max_tokens` → forward with `positions` and the mask → hidden states at `predictors`
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PROMPT_SEGMENT = 0


@dataclass(frozen=True, slots=True)
class Pack:
    """One forward pass over L input tokens, of which T completion tokens are predicted."""

    input_ids: tuple[int, ...]
    """L tokens: the prompt, then each completion but its last token."""
    positions: tuple[int, ...]
    """L positions, as if each completion followed the prompt alone."""
    segments: tuple[int, ...]
    """L segment numbers: 0 for the prompt, i for the i-th completion of this pack, from 1."""
    predictors: tuple[int, ...]
    """T input indices: whose hidden state predicts the target."""
    targets: tuple[int, ...]
    """T completion tokens."""
    owners: tuple[int, ...]
    """T indices into the group's completions."""

    @property
    def prompt_tokens(self) -> int:
        return self.segments.count(PROMPT_SEGMENT)

    @property
    def size(self) -> tuple[int, int]:
        """Inputs of the prompt and of the completions."""
        return self.prompt_tokens, len(self.segments) - self.prompt_tokens


def pack_group(prompt: Sequence[int], completions: Sequence[Sequence[int]], max_tokens: int) -> list[Pack]:
    """Pack a group in order, into as many packs of at most `max_tokens` inputs as that takes.

    Every pack holds at least one completion, so a single long one may exceed the limit. Raises ValueError for
    an empty prompt or completion: nothing would predict, or be predicted.
    """
    if not prompt or not all(completions):
        raise ValueError("a pack needs a prompt and completions of at least one token each")
    return [_pack(prompt, completions, members) for members in _split(len(prompt), completions, max_tokens)]


def sees(pack: Pack, query: int, key: int) -> bool:
    """Whether the input at `query` attends to the one at `key`: causal, the prompt or its own completion."""
    return key <= query and pack.segments[key] in (PROMPT_SEGMENT, pack.segments[query])


def _split(prompt_tokens: int, completions: Sequence[Sequence[int]], max_tokens: int) -> Iterator[list[int]]:
    members: list[int] = []
    used = prompt_tokens
    for index, completion in enumerate(completions):
        inputs = len(completion) - 1
        if members and used + inputs > max_tokens:
            yield members
            members, used = [], prompt_tokens
        members.append(index)
        used += inputs
    if members:
        yield members


def _pack(prompt: Sequence[int], completions: Sequence[Sequence[int]], members: Sequence[int]) -> Pack:
    input_ids, positions = list(prompt), list(range(len(prompt)))
    segments = [PROMPT_SEGMENT] * len(prompt)
    predictors: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for segment, index in enumerate(members, start=1):
        completion = completions[index]
        offset, inputs = len(input_ids), len(completion) - 1
        input_ids += completion[:-1]
        positions += range(len(prompt), len(prompt) + inputs)
        segments += [segment] * inputs
        predictors += [len(prompt) - 1, *range(offset, offset + inputs)]
        targets += completion
        owners += [index] * len(completion)
    return Pack(*map(tuple, (input_ids, positions, segments, predictors, targets, owners)))
