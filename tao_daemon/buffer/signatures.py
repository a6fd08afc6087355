"""What two prompts are compared by: MinHash over character shingles of the normalised user text.

Invariant: the same prompt has the same signature in every process (fixed seed and hash); `VERSION` changes whenever
signatures become incomparable with stored ones.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

from tao_daemon.domain.prompt import Prompt

Signature = npt.NDArray[np.uint32]

SLOTS = 128
"""Values per signature: the estimate of a similarity s has a standard deviation of sqrt(s(1 - s)/128), 0.04 at 0.7."""
SHINGLE = 5
"""Characters per shingle."""
_SEED = 20_25
VERSION = f"rensa-{RMinHash.ALGORITHM_VERSION}/{SLOTS}/{SHINGLE}/{_SEED}/1"

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A prompt as the cluster index sees it."""

    task: str
    """Digest of the system messages: prompts of different tasks never cluster."""
    key: str
    """Digest of task and normalised text: the same text always falls into the same split."""
    signature: Signature
    """Shape (SLOTS,)."""


def fingerprint(prompt: Prompt) -> Fingerprint:
    """Normalise, shingle, hash. A prompt without user text is like every other such prompt of its task."""
    text = normalise(prompt.user_text)
    task = prompt.system_digest
    key = hashlib.blake2b(f"{task}\x00{text}".encode(), digest_size=16).hexdigest()
    return Fingerprint(task, key, _signature(text))


def normalise(text: str) -> str:
    """Lower case, one space between words, every number 0: order 12 and order 977 are the same request."""
    return _DIGITS.sub("0", " ".join(text.lower().split()))


def _signature(text: str) -> Signature:
    hashes = _shingle_hashes(text)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, [0, len(hashes)], SLOTS, _SEED)
    return np.array(matrix.to_rows()[0], dtype=np.uint32)


def _shingle_hashes(text: str) -> npt.NDArray[np.uint64]:
    """One 64-bit hash per window of SHINGLE code points (a rolling polynomial, then mixed); text may be shorter."""
    points = np.frombuffer(text.ljust(SHINGLE).encode("utf-32-le"), dtype="<u4").astype(np.uint64)
    windows = len(points) - SHINGLE + 1
    hashes = points[:windows].copy()
    for place in range(1, SHINGLE):
        hashes *= _MULTIPLIER
        hashes += points[place : place + windows]
    hashes ^= hashes >> _HALF
    hashes *= _MULTIPLIER
    hashes ^= hashes >> _HALF
    return hashes
