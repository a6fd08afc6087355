"""The bookkeeping of one batch that every store shares: what is new, which clusters began, what to count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from tao_daemon.buffer.clusters import Assignment, ClusterRecord
from tao_daemon.buffer.signatures import Fingerprint
from tao_daemon.domain.ports import Ingested
from tao_daemon.domain.prompt import Prompt, Split


def unseen(prompts: Sequence[Prompt], known: Collection[str]) -> list[Prompt]:
    """Prompts not buffered yet, each once, in order."""
    first = {prompt.id: prompt for prompt in reversed(prompts) if prompt.id not in known}
    return [prompt for prompt in prompts if first.get(prompt.id) is prompt]


def new_clusters(fingerprints: Sequence[Fingerprint], assignments: Sequence[Assignment]) -> list[ClusterRecord]:
    """The clusters that a batch started, by their first members, in the order of their numbers."""
    return [
        ClusterRecord(assignment.cluster, each.task, assignment.split, each.signature)
        for each, assignment in zip(fingerprints, assignments, strict=True)
        if assignment.is_new and assignment.cluster is not None
    ]


def counted(assignments: Sequence[Assignment], *, duplicates: int) -> Ingested:
    splits = Counter(assignment.split for assignment in assignments)
    return Ingested(splits[Split.TRAIN], splits[Split.HELD_OUT], splits[Split.EXCLUDED], duplicates)
