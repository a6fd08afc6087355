"""Near-duplicate clusters, and through them the split of every prompt.

Invariants: a cluster has one split for ever, drawn when its first member arrives (DESIGN §7: first assignment wins); a
prompt that resembles clusters of both splits belongs to neither and starts none. A cluster is compared by its first
member alone, so memory is bounded per cluster (about 0.9 KB) however many prompts join it; two later members of
different clusters may be closer to each other than to their firsts.

fingerprints of a batch → candidates that share a band → estimated similarity → join, start or exclude
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tao_daemon.buffer.bands import BandTable, bands_for
from tao_daemon.buffer.signatures import SLOTS, Fingerprint, Signature
from tao_daemon.domain.prompt import Split


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where one prompt went. `cluster` is None for an excluded prompt."""

    split: Split
    cluster: int | None
    is_new: bool
    """Whether the prompt started the cluster."""


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """A cluster as it is stored; `number` counts from 0 without gaps."""

    number: int
    task: str
    split: Split
    signature: Signature


class ClusterIndex:
    """All clusters of a buffer. Not thread-safe; after a failed transaction, restore a fresh one from the table."""

    def __init__(self, *, similarity: float, held_out_fraction: float, salt: str) -> None:
        self._similarity = similarity
        self._held_out_fraction = held_out_fraction
        self._salt = salt
        self._table = BandTable(bands_for(similarity, SLOTS))
        self._count = 0
        self._signatures = np.empty((0, SLOTS), dtype=np.uint32)
        self._tasks = np.empty(0, dtype=np.uint64)
        self._held_out = np.empty(0, dtype=np.bool_)

    def __len__(self) -> int:
        return self._count

    def restore(self, records: Sequence[ClusterRecord]) -> None:
        """Add stored clusters, in the order of their numbers, in as many calls as wanted."""
        assert [record.number for record in records] == list(range(self._count, self._count + len(records)))
        if not records:
            return
        signatures = np.stack([record.signature for record in records])
        tasks = np.array([_task_number(record.task) for record in records], dtype=np.uint64)
        first, end = self._count, self._count + len(records)
        self._table.add_sorted(self._table.keys(signatures, tasks), first=first)
        self._reserve(len(records))
        self._signatures[first:end], self._tasks[first:end] = signatures, tasks
        self._held_out[first:end] = [record.split is Split.HELD_OUT for record in records]
        self._count = end

    def assign(self, fingerprints: Sequence[Fingerprint]) -> list[Assignment]:
        """One assignment per fingerprint, in order; later ones see the clusters that earlier ones started."""
        if not fingerprints:
            return []
        signatures = np.stack([each.signature for each in fingerprints])
        tasks = np.array([_task_number(each.task) for each in fingerprints], dtype=np.uint64)
        keys = self._table.keys(signatures, tasks)
        settled = self._table.lookup_sorted(keys)
        assignments = []
        for row, each in enumerate(fingerprints):
            candidates = self._table.with_recent(settled[row], keys[row])
            assignments.append(self._assign(each, tasks[row], keys[row], candidates))
        self._table.settle()
        return assignments

    def _assign(
        self, wanted: Fingerprint, task: np.uint64, keys: npt.NDArray[np.uint64], candidates: npt.NDArray[np.int64]
    ) -> Assignment:
        alike, similarities = self._alike(wanted.signature, task, candidates)
        if not len(alike):
            split = split_of(wanted.key, held_out_fraction=self._held_out_fraction, salt=self._salt)
            number = self._append(wanted.signature, task, split)
            self._table.add_recent(keys, number)
            return Assignment(split, number, is_new=True)
        held_out = self._held_out[alike]
        if held_out.any() and not held_out.all():
            return Assignment(Split.EXCLUDED, None, is_new=False)
        nearest = int(alike[np.argmax(similarities)])
        return Assignment(Split.HELD_OUT if held_out[0] else Split.TRAIN, nearest, is_new=False)

    def _alike(
        self, signature: Signature, task: np.uint64, candidates: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Clusters of the task whose first member is similar enough, by number, and how similar."""
        if not len(candidates):
            return candidates, np.empty(0)
        same_task = candidates[self._tasks[candidates] == task]
        similarities = (self._signatures[same_task] == signature).mean(axis=1)
        enough = similarities >= self._similarity
        return same_task[enough], similarities[enough]

    def _append(self, signature: Signature, task: np.uint64, split: Split) -> int:
        self._reserve(1)
        number = self._count
        self._signatures[number], self._tasks[number] = signature, task
        self._held_out[number] = split is Split.HELD_OUT
        self._count += 1
        return number

    def _reserve(self, more: int) -> None:
        """Room for `more` clusters; grows by half, so that appending stays cheap."""
        if self._count + more <= len(self._tasks):
            return
        room = max(1024, more, self._count // 2)
        self._signatures = np.concatenate([self._signatures, np.empty((room, SLOTS), dtype=np.uint32)])
        self._tasks = np.concatenate([self._tasks, np.empty(room, dtype=np.uint64)])
        self._held_out = np.concatenate([self._held_out, np.empty(room, dtype=np.bool_)])


def split_of(key: str, *, held_out_fraction: float, salt: str) -> Split:
    """The split of a new cluster: uniform in its key, the same whenever and wherever it is asked."""
    digest = hashlib.blake2b(f"{salt}\x00{key}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    return Split.HELD_OUT if place < held_out_fraction else Split.TRAIN


def _task_number(task: str) -> int:
    return int.from_bytes(hashlib.blake2b(task.encode(), digest_size=8).digest(), "big")
