"""Locality-sensitive hashing: which clusters may be similar enough to be worth comparing.

A signature is cut into bands; two signatures are candidates when a band agrees. Invariants: a pair at the threshold is
missed with probability below 2 %, but for crowded buckets, of which only the oldest BUCKET_LIMIT members are looked at
(a bucket is crowded by text that a whole task shares; near-duplicates also meet in others).

keys → recent (dict) → settled (one sorted array of 12 bytes per entry)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]

BUCKET_LIMIT = 256
_RECALL = 0.98
_SETTLE_AT_LEAST = 4096
"""Recent clusters before they are merged into the sorted array, which costs a pass over it."""
_MULTIPLIER = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Bands:
    count: int
    rows: int
    """Signature values per band."""


def bands_for(similarity: float, slots: int) -> Bands:
    """The most selective cut that still finds a pair at `similarity`: P = 1 - (1 - s^rows)^bands."""
    for rows in range(slots, 0, -1):
        count = slots // rows
        if 1.0 - (1.0 - similarity**rows) ** count >= _RECALL:
            return Bands(count, rows)
    return Bands(slots, 1)


class BandTable:
    """From band keys to cluster numbers. Not thread-safe."""

    def __init__(self, bands: Bands) -> None:
        self._bands = bands
        weights = [pow(_MULTIPLIER, row + 1, 2**64) for row in range(bands.rows)]
        self._weights = np.array(weights, dtype=np.uint64)
        self._band_salts = np.arange(1, bands.count + 1, dtype=np.uint64) * np.uint64(0xD6E8FEB86659FD93)
        self._keys: Keys = np.empty(0, dtype=np.uint64)
        self._numbers = np.empty(0, dtype=np.int32)
        self._recent: dict[int, list[int]] = {}
        self._recent_rows: list[tuple[Keys, int]] = []

    def keys(self, signatures: npt.NDArray[np.uint32], tasks: Keys) -> Keys:
        """Keys of shape (n, bands) for signatures of shape (n, slots), distinct per task and band."""
        used = signatures[:, : self._bands.count * self._bands.rows].astype(np.uint64)
        sums = (used.reshape(len(signatures), self._bands.count, self._bands.rows) * self._weights).sum(axis=2)
        return _mixed(_mixed(sums + self._band_salts) ^ tasks[:, None])

    def lookup_sorted(self, keys: Keys) -> list[Numbers]:
        """For each row of keys, the settled clusters that share a band; unique and ascending."""
        starts = np.searchsorted(self._keys, keys, side="left")
        ends = np.minimum(np.searchsorted(self._keys, keys, side="right"), starts + BUCKET_LIMIT)
        return [
            _unique([self._numbers[a:b] for a, b in zip(row_starts, row_ends, strict=True) if a < b])
            for row_starts, row_ends in zip(starts, ends, strict=True)
        ]

    def with_recent(self, settled: Numbers, keys: Keys) -> Numbers:
        """Add the clusters that share a band and are not settled yet."""
        found = [members for key in keys.tolist() if (members := self._recent.get(key))]
        if not found:
            return settled
        return _unique([settled, *(np.array(members[:BUCKET_LIMIT]) for members in found)])

    def add_recent(self, keys: Keys, number: int) -> None:
        for key in keys.tolist():
            self._recent.setdefault(key, []).append(number)
        self._recent_rows.append((keys, number))

    def settle(self) -> None:
        """Move recent clusters into the sorted array once there are enough of them; amortised."""
        settled = len(self._numbers) // self._bands.count
        if len(self._recent_rows) < max(_SETTLE_AT_LEAST, settled // 10):
            return
        rows = np.stack([keys for keys, _ in self._recent_rows])
        self._merge(rows.ravel(), np.repeat([number for _, number in self._recent_rows], self._bands.count))
        self._recent, self._recent_rows = {}, []

    def add_sorted(self, keys: Keys, *, first: int) -> None:
        """Add clusters numbered from `first`, one row of keys each, straight into the sorted array."""
        self._merge(keys.ravel(), np.repeat(np.arange(first, first + len(keys)), self._bands.count))

    def _merge(self, keys: Keys, numbers: Numbers) -> None:
        order = np.argsort(keys, kind="stable")
        keys, numbers = keys[order], numbers[order]
        places = np.searchsorted(self._keys, keys, side="right")  # after equal keys: older members stay first
        self._keys = np.insert(self._keys, places, keys)
        self._numbers = np.insert(self._numbers, places, numbers.astype(np.int32))


def _unique(parts: list[npt.NDArray[np.signedinteger]]) -> Numbers:
    if not parts:
        return np.empty(0, dtype=np.int64)
    return np.unique(np.concatenate(parts)).astype(np.int64)


def _mixed(values: Keys) -> Keys:
    """The finaliser of splitmix64: every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
