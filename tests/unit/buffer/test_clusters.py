from __future__ import annotations

import random
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao_daemon.buffer import bands
from tao_daemon.buffer.bands import bands_for
from tao_daemon.buffer.clusters import Assignment, ClusterIndex, ClusterRecord, split_of
from tao_daemon.buffer.signatures import SHINGLE, Fingerprint, fingerprint, normalise
from tao_daemon.domain.prompt import Prompt, Source, Split

WORDS = ["".join(random.Random(seed).choices(string.ascii_lowercase, k=3 + seed % 7)) for seed in range(400)]


def sentence(seed: int, words: int = 40) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def edited(text: str, seed: int, words: int = 1) -> str:
    pieces = text.split()
    for place in random.Random(seed).sample(range(len(pieces)), words):
        pieces[place] = f"changed{seed}"
    return " ".join(pieces)


def printed(text: str, system: str = "classify") -> Fingerprint:
    source = Source("t", 0, 0)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return fingerprint(Prompt(source.prompt_id, {"messages": messages}, source, 0.0))


def index(fraction: float = 0.2, similarity: float = 0.7) -> ClusterIndex:
    return ClusterIndex(similarity=similarity, held_out_fraction=fraction, salt="test")


def similarity(a: Fingerprint, b: Fingerprint) -> float:
    return float((a.signature == b.signature).mean())


def test_case_space_and_numbers_do_not_tell_prompts_apart() -> None:
    assert normalise("  Order\t #12\n of 2024 ") == "order #0 of 0"
    assert printed("Order 12").key == printed("order  977").key


def test_signatures_estimate_the_jaccard_similarity_of_shingles() -> None:
    def exact(a: str, b: str) -> float:
        x, y = ({t[i : i + SHINGLE] for i in range(len(t) - SHINGLE + 1)} for t in (a, b))
        return len(x & y) / len(x | y)

    pairs = [(sentence(seed), edited(sentence(seed), seed, words=1 + seed % 12)) for seed in range(200)]
    errors = [similarity(printed(a), printed(b)) - exact(normalise(a), normalise(b)) for a, b in pairs]
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.06


GOLDEN = [3490459723, 539356294, 3248834563]
"""When these change, so must `signatures.VERSION`: stored clusters are signed again."""


def test_a_stored_signature_means_the_same_tomorrow() -> None:
    assert printed("order 5 has not arrived").signature[:3].tolist() == GOLDEN


@pytest.mark.parametrize("text", ["", " ", "a", "12", "héllo wörld", "你好", "\U0001f600" * 3])
def test_any_text_has_a_signature_and_is_its_own_duplicate(text: str) -> None:
    one = index()
    first, second = one.assign([printed(text), printed(text)])
    assert first.is_new
    assert second == Assignment(first.split, first.cluster, is_new=False)


def test_near_duplicates_join_and_others_do_not() -> None:
    one = index()
    base = sentence(1)
    first, joined, other = one.assign([printed(base), printed(edited(base, 5)), printed(sentence(2))])
    assert joined == Assignment(first.split, first.cluster, is_new=False)
    assert other.is_new


def test_the_same_text_under_another_system_message_is_another_cluster() -> None:
    one = index()
    first, second = one.assign([printed("hello there", "classify"), printed("hello there", "translate")])
    assert first.is_new
    assert second.is_new
    assert len(one) == 2


def test_a_bridge_between_the_splits_belongs_to_neither() -> None:
    low = index(similarity=0.3)
    left, right = _opposite_sentences()
    bridge = left + " " + right
    assert min(similarity(printed(bridge), printed(text)) for text in (left, right)) >= 0.3
    a, b, between = low.assign([printed(left), printed(right), printed(bridge)])
    assert {a.split, b.split} == {Split.TRAIN, Split.HELD_OUT}
    assert between == Assignment(Split.EXCLUDED, None, is_new=False)
    assert len(low) == 2


def _opposite_sentences() -> tuple[str, str]:
    """Two unlike texts that fall into different splits under the fraction and salt of `index`."""
    splits = {}
    for seed in range(1000):
        text = sentence(seed)
        splits.setdefault(split_of(printed(text).key, held_out_fraction=0.2, salt="test"), text)
        if len(splits) == 2:
            return splits[Split.TRAIN], splits[Split.HELD_OUT]
    raise AssertionError("a thousand draws gave one split")


def test_splits_follow_the_fraction_and_the_salt() -> None:
    keys = [f"k{i}" for i in range(4000)]
    held = [split_of(k, held_out_fraction=0.2, salt="s") is Split.HELD_OUT for k in keys]
    assert 0.17 < np.mean(held) < 0.23
    other = [split_of(k, held_out_fraction=0.2, salt="z") is Split.HELD_OUT for k in keys]
    assert held != other


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_pairs_at_the_threshold(threshold: float) -> None:
    cut = bands_for(threshold, 128)
    assert cut.count * cut.rows <= 128
    assert 1 - (1 - threshold**cut.rows) ** cut.count >= 0.98


def test_settled_recent_and_restored_clusters_are_found_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "_SETTLE_AT_LEAST", 50)
    one = index()
    prints = [printed(sentence(seed)) for seed in range(300)]
    assigned = [a for start in range(0, 300, 20) for a in one.assign(prints[start : start + 20])]
    again = one.assign(prints)
    assert [(a.split, a.cluster) for a in again] == [(a.split, a.cluster) for a in assigned]
    other = index()
    records = [
        ClusterRecord(a.cluster, p.task, a.split, p.signature)
        for a, p in zip(assigned, prints, strict=True)
        if a.is_new and a.cluster is not None
    ]
    other.restore(records[:100])
    other.restore(records[100:])
    assert other.assign(prints) == again


FAMILIES = [[edited(sentence(f), f * 100 + m, words=m) if m else sentence(f) for m in range(6)] for f in range(6)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40), st.lists(st.integers(1, 7), max_size=12))
def test_no_cluster_is_ever_in_both_splits_whatever_the_order_and_the_restarts(
    arrivals: list[tuple[int, int]], cuts: list[int]
) -> None:
    one = index(fraction=0.5)
    stored: list[ClusterRecord] = []
    splits: dict[int, Split] = {}
    prints = [printed(FAMILIES[family][member]) for family, member in arrivals]
    for size in [*cuts, len(prints)]:
        batch, prints = prints[:size], prints[size:]
        for each, assignment in zip(batch, one.assign(batch), strict=True):
            _check(each, assignment, stored, splits)
        one = index(fraction=0.5)  # a restart
        one.restore(stored)


def _check(each: Fingerprint, assignment: Assignment, stored: list[ClusterRecord], splits: dict[int, Split]) -> None:
    alike = {r.number: r.split for r in stored if (r.signature == each.signature).mean() >= 0.7}
    if assignment.cluster is None:
        assert assignment.split is Split.EXCLUDED
        assert set(alike.values()) == {Split.TRAIN, Split.HELD_OUT}
        return
    assert assignment.split is not Split.EXCLUDED
    assert splits.setdefault(assignment.cluster, assignment.split) is assignment.split
    if assignment.is_new:
        assert assignment.cluster == len(stored)
        stored.append(ClusterRecord(assignment.cluster, each.task, assignment.split, each.signature))
        assert alike == {}
    else:
        assert set(alike.values()) == {assignment.split}
