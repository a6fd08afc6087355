"""Micro-batches: packs of similar size side by side in one padded batch of bounded size.

Pure. A batch is laid out [prompt | completions], each part padded to its longest: B packs compute B·(P + C) tokens,
whatever part of them is padding; sorting by length keeps that part small. Every pack is in exactly one batch, and a
single long one may exceed the limit.
"""

from __future__ import annotations

from collections.abc import Sequence


def micro_batches(sizes: Sequence[tuple[int, int]], max_tokens: int) -> list[list[int]]:
    """Indices into `sizes`, which are (prompt, completions) tokens of packs.

    The longest come first, so that what does not fit in memory fails at once.
    """
    batches: list[list[int]] = []
    prompt = rest = 0
    for index in sorted(range(len(sizes)), key=lambda i: (-sum(sizes[i]), i)):
        wider = max(prompt, sizes[index][0]), max(rest, sizes[index][1])
        if batches and sum(wider) * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(index)
            prompt, rest = wider
        else:
            batches.append([index])
            prompt, rest = sizes[index]
    return batches
