from __future__ import annotations

import time
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.buffer.acceptance import patient
from tao_daemon.buffer.selection import Candidate, choose
from tao_daemon.domain.ports import Claim
from tao_daemon.domain.prompt import Prompt, Source


def candidate(offset: int, *, at: float = 0.0, tenant: str = "", cluster: int | None = None) -> Candidate:
    source = Source("t", 0, offset)
    return Candidate(
        Prompt(source.prompt_id, {"prompt": "x"}, source, at, tenant=tenant), offset if cluster is None else cluster
    )


def claim(limit: int, share: float = 1.0, accepts=lambda prompt: True) -> Claim:
    return Claim(1, limit, share, accepts)


def test_newest_first_one_per_cluster() -> None:
    found = choose(
        [candidate(0, at=1.0), candidate(1, at=3.0, cluster=9), candidate(2, at=2.0, cluster=9), candidate(3, at=0.5)],
        claim(2),
    )
    assert [p.source.offset for p in found] == [1, 0]


def test_a_refused_newest_member_does_not_hide_an_older_one() -> None:
    found = choose(
        [candidate(0, at=2.0, cluster=1), candidate(1, at=1.0, cluster=1)],
        claim(2, accepts=lambda p: p.source.offset == 1),
    )
    assert [p.source.offset for p in found] == [1]


def test_one_tenant_alone_has_no_cap() -> None:
    assert len(choose([candidate(i, tenant="a") for i in range(10)], claim(8, share=0.5))) == 8


def test_a_flood_gets_its_share_and_no_more() -> None:
    flood = [candidate(i, at=1000.0 + i, tenant="loud") for i in range(500)]
    others = [candidate(1000 + i, at=i, tenant="quiet") for i in range(40)]
    tenants = Counter(p.tenant for p in choose(flood + others, claim(64, share=0.5)))
    assert tenants == {"loud": 32, "quiet": 32}


def test_a_tenant_with_next_to_no_traffic_makes_no_round_impossible() -> None:
    flood = [candidate(i, at=1000.0 + i, tenant="loud") for i in range(500)]
    tenants = Counter(p.tenant for p in choose([*flood, candidate(999, tenant="quiet")], claim(64, share=0.5)))
    assert tenants == {"loud": 32, "quiet": 1}


def test_scorers_are_asked_about_no_more_prompts_than_it_takes() -> None:
    asked: list[int] = []

    def accepts(prompt: Prompt) -> bool:
        asked.append(prompt.source.offset)
        return True

    copies = [candidate(i, at=100.0 - i, cluster=0) for i in range(50)]
    assert len(choose([*copies, *(candidate(50 + i, at=-i) for i in range(50))], claim(5, accepts=accepts))) == 5
    assert asked == [0, 50, 51, 52, 53], "one of a cluster, and none once the claim is full"
    asked.clear()
    tenants = [candidate(i, at=100.0 - i, tenant="ab"[i % 2]) for i in range(50)]
    assert len(choose(tenants, claim(6, 0.5, accepts))) == 6
    assert asked == [0, 1, 2, 3, 4, 5]


def test_a_prompt_is_asked_about_once_per_claim_and_none_when_time_is_up() -> None:
    asked: list[int] = []

    def slow(prompt: Prompt) -> bool:
        asked.append(prompt.source.offset)
        time.sleep(0.02)
        return prompt.source.offset % 2 == 0

    candidates = [candidate(i, at=-float(i)) for i in range(500)]
    wanted = patient(claim(500, accepts=slow), seconds=0.2)
    found = choose(candidates, wanted)
    assert 1 <= len(found) <= 6, "what was found in time"
    assert len(asked) <= 11
    assert choose(candidates, wanted) == found
    assert len(asked) == len(set(asked)) <= 11


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 12), st.integers(0, 5)), max_size=60),
    st.integers(1, 20),
    st.floats(0.05, 1.0),
)
def test_bounds_hold_for_any_candidates(rows: list[tuple[str, int, int]], limit: int, share: float) -> None:
    candidates = [candidate(i, at=at, tenant=t, cluster=c) for i, (t, c, at) in enumerate(rows)]
    wanted = claim(limit, share, accepts=lambda p: p.source.offset % 5 != 0)
    chosen = choose(candidates, wanted)
    clusters = {c.prompt.id: c.cluster for c in candidates}
    assert len({clusters[p.id] for p in chosen}) == len(chosen) <= limit
    assert all(wanted.accepts(p) for p in chosen)
    assert [p.received_at for p in chosen] == sorted((p.received_at for p in chosen), reverse=True)
    eligible_tenants = {p.tenant for p in choose(candidates, claim(10_000, 1.0, wanted.accepts))}
    if len(eligible_tenants) > 1:
        assert max(Counter(p.tenant for p in chosen).values()) <= max(1, int(share * wanted.limit + 1e-6))
    assert choose(list(reversed(candidates)), wanted) == chosen
    assert bool(chosen) == any(wanted.accepts(c.prompt) for c in candidates)
