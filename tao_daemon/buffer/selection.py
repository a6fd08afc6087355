"""Which of the available prompts a round gets: the least tried, then the newest; one per cluster; a cap per tenant.

Invariant: with several tenants, none has more than max(1, floor(share x limit)) of the claim's places. Places that the
others cannot fill stay empty, so that a flood never takes the whole round; a tenant with next to no traffic does not
make rounds impossible either, as a share of the prompts actually claimed would.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from tao_daemon.domain.ports import Claim
from tao_daemon.domain.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Candidate:
    """An available prompt and its cluster."""

    prompt: Prompt
    cluster: int
    attempts: int = 0
    """Rounds that it took part in and that came to nothing."""


def choose(candidates: Iterable[Candidate], claim: Claim) -> list[Prompt]:
    """The prompts of a claim: untried clusters first, as what refused rounds found of the others is kept; of those the
    newest, then by identifier, so that the choice depends on the set alone."""
    found = list(candidates)
    tries: Counter[int] = Counter()
    for each in found:
        tries[each.cluster] = max(tries[each.cluster], each.attempts)
    return draw(sorted(found, key=lambda each: (tries[each.cluster], -each.prompt.received_at, each.prompt.id)), claim)


def draw(candidates: Sequence[Candidate], claim: Claim) -> list[Prompt]:
    """The prompts of a claim in the order of the candidates. Of no more is it asked whether they are accepted than it
    takes: that may take long."""
    eligible = _first_per_cluster(candidates, claim)
    seen = _until_second_tenant(eligible) if _tenants(each.prompt for each in candidates) > 1 else []
    cap = _tenant_cap(_tenants(seen), claim)
    taken: Counter[str] = Counter()
    chosen: list[Prompt] = []
    for prompt in chain(seen, eligible):
        if taken[prompt.tenant] < cap:
            taken[prompt.tenant] += 1
            chosen.append(prompt)
        if len(chosen) == claim.limit:
            break
    return chosen


def in_order_of_arrival(prompts: Iterable[Prompt]) -> list[Prompt]:
    return sorted(prompts, key=lambda prompt: (prompt.received_at, prompt.id))


def _first_per_cluster(candidates: Iterable[Candidate], claim: Claim) -> Iterator[Prompt]:
    seen: set[int] = set()
    for candidate in candidates:
        if candidate.cluster not in seen and claim.accepts(candidate.prompt):
            seen.add(candidate.cluster)
            yield candidate.prompt


def _until_second_tenant(prompts: Iterator[Prompt]) -> list[Prompt]:
    """The first ones, to the first of another tenant; all of them when there is none."""
    seen: list[Prompt] = []
    for prompt in prompts:
        seen.append(prompt)
        if prompt.tenant != seen[0].tenant:
            break
    return seen


def _tenants(prompts: Iterable[Prompt]) -> int:
    return len({prompt.tenant for prompt in prompts})


def _tenant_cap(tenants: int, claim: Claim) -> int:
    """Places that each tenant may have."""
    if tenants < 2:
        return claim.limit
    return max(1, math.floor(claim.tenant_share * claim.limit + 1e-9))
