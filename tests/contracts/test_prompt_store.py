"""What every PromptStore does, on the one in memory and the one in DuckDB."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tao_daemon.buffer.duckdb_store import DuckDBStore
from tao_daemon.buffer.memory_store import MemoryStore
from tao_daemon.domain.errors import PromptStoreError
from tao_daemon.domain.ports import Claim, Ingest, Ingested, PromptStore
from tao_daemon.domain.prompt import Prompt, Source, Split
from tao_daemon.domain.signals import PromptsBuffered, Signal

Make = Callable[..., Any]
WORDS = ("alpha", "bravo", "carbon", "delta", "ember", "fjord", "gamma", "hotel", "india", "julia", "koala", "lemon")


def prompt(offset: int, text: str | None = None, *, tenant: str = "", at: float | None = None) -> Prompt:
    """Distinct offsets have dissimilar texts, unless one is given."""
    text = text or "".join(random.Random(offset).choices(string.ascii_lowercase, k=60))
    source = Source("prompts", 0, offset)
    request = {"messages": [{"role": "user", "content": text}], "model": "m"}
    return Prompt(source.prompt_id, request, source, float(offset) if at is None else at, tenant, "c", "s")


def wanted(round_id: int = 1, limit: int = 10, share: float = 1.0, accepts: Any = lambda prompt: True) -> Claim:
    return Claim(round_id, limit, share, accepts)


@pytest.fixture(params=["memory", "duckdb"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Builds stores; a second call builds another one, over the same file if there is a file."""
    opened: list[Any] = []

    def build(**changes: Any) -> PromptStore:
        options = {"held_out_fraction": 0.5, "similarity": 0.7, "max_attempts": 2, "salt": "s", **changes}
        if request.param == "memory":
            opened.append(MemoryStore(**options))
        else:
            options = {"emit": lambda signal: None, "min_free_disk_mib": 0, **options}
            opened.append(DuckDBStore(tmp_path / "tao.duckdb", **options))
        return opened[-1]

    yield build
    for store in opened:
        store.close()


@pytest.fixture
def store(make: Make) -> PromptStore:
    return make()


def put(store: PromptStore, *prompts: Prompt, offsets: dict[tuple[str, int], int] | None = None) -> Ingested:
    return store.submit(Ingest(prompts, offsets or {})).result(30)


async def test_counts_splits_and_offsets(store: PromptStore) -> None:
    done = put(store, *(prompt(i) for i in range(40)), offsets={("prompts", 0): 40, ("other", 1): 7})
    assert done.train + done.held_out == 40
    assert done.train > 5
    assert done.held_out > 5
    stats = await store.stats()
    assert (stats.train, stats.train_available) == (done.train, done.train)
    assert (stats.held_out, stats.held_out_available) == (done.held_out, done.held_out)
    assert (stats.excluded, stats.clusters) == (0, 40)
    assert await store.next_offsets("prompts") == {0: 40}
    assert await store.next_offsets("other") == {1: 7}
    assert await store.next_offsets("nothing") == {}


async def test_records_already_there_are_skipped_and_counted(store: PromptStore) -> None:
    put(store, prompt(1), prompt(2))
    done = put(store, prompt(2), prompt(3), prompt(3))
    assert done.duplicates == 2
    assert done.train + done.held_out == 1
    stats = await store.stats()
    assert stats.train + stats.held_out == 3


async def test_offsets_move_without_prompts_and_never_back(store: PromptStore) -> None:
    put(store, offsets={("prompts", 0): 9})
    put(store, offsets={("prompts", 0): 4, ("prompts", 1): 0})
    assert await store.next_offsets("prompts") == {0: 9, 1: 0}


async def test_a_claim_is_newest_first_and_the_same_when_asked_again(make: Make) -> None:
    store = make(held_out_fraction=1e-9)
    put(store, *(prompt(i) for i in range(30)))
    claimed = await store.claim_training(wanted(limit=5))
    assert [p.source.offset for p in claimed] == [29, 28, 27, 26, 25]
    put(store, prompt(99))
    assert await store.claim_training(wanted(limit=5)) == claimed
    assert await store.claim_training(wanted(limit=20)) == claimed
    other = await store.claim_training(wanted(2, limit=5))
    assert [p.source.offset for p in other] == [99, 24, 23, 22, 21]
    assert (await store.stats()).train_available == 21


async def test_what_was_tried_is_claimed_after_what_was_not(make: Make) -> None:
    store = make(held_out_fraction=1e-9)
    put(store, *(prompt(i) for i in range(12)), *(prompt(i, tenant="other") for i in range(12, 15)))
    for number in (1, 2):
        await store.claim_training(wanted(number, limit=4))
        await store.release(number, consumed=False)
    claimed = await store.claim_training(wanted(3, limit=15))
    assert [p.source.offset for p in claimed] == [6, 5, 4, 3, 2, 1, 0, 14, 13, 12, 11, 10, 9, 8, 7]


async def test_a_sibling_of_what_was_tried_is_no_untried_prompt(make: Make) -> None:
    store = make(held_out_fraction=1e-9)
    put(store, *(prompt(i) for i in range(3)))
    [tried] = await store.claim_training(wanted(limit=1))
    await store.release(1, consumed=False)
    sibling = replace(prompt(50), request=tried.request)
    put(store, sibling)
    claimed = await store.claim_training(wanted(2, limit=3))
    assert [p.source.offset for p in claimed] == [1, 0, 50]


async def test_carried_prompts_are_used_up_with_the_rounds_own(make: Make) -> None:
    store = make(held_out_fraction=1e-9)
    put(store, *(prompt(i) for i in range(12)))
    refused = [p.id for p in await store.claim_training(wanted(1, limit=4))]
    await store.release(1, consumed=False)
    await store.claim_training(wanted(2, limit=4))
    await store.release(2, consumed=False, carried=refused)
    assert (await store.stats()).train_available == 12
    own = [p.id for p in await store.claim_training(wanted(3, limit=4))]
    await store.release(3, consumed=True, carried=[*refused, "gone"])
    assert (await store.stats()).train_available == 4
    rehearsed = await store.claim_rehearsal(wanted(4, limit=20))
    assert {p.id for p in rehearsed} == {*refused, *own}


async def test_prompts_come_back_as_they_went_in(make: Make) -> None:
    store = make(held_out_fraction=1e-9)
    original = prompt(5, 'quotes " and \\ and ünïcode 你好 \U0001f600\ttab', tenant="acme", at=1234.5678)
    put(store, original)
    assert await store.claim_training(wanted()) == [original]


async def test_an_empty_claim_stays_empty(store: PromptStore) -> None:
    assert await store.claim_held_out(wanted()) == []
    put(store, *(prompt(i) for i in range(20)))
    assert await store.claim_held_out(wanted()) == [], "a gate's set is fixed when it is asked for"
    assert await store.claim_held_out(wanted(2))


async def test_a_rehearsal_draws_what_earlier_rounds_used_up_and_changes_nothing(make: Make) -> None:
    store = make(held_out_fraction=1e-9)
    put(store, *(prompt(i) for i in range(60)))
    first = await store.claim_training(wanted(1, limit=20))
    assert await store.claim_rehearsal(wanted(1)) == [], "what a round still trains on is not used up"
    await store.release(1, consumed=True)
    rejected = await store.claim_training(wanted(2, limit=20))
    await store.release(2, consumed=False)
    stats = await store.stats()
    draws = [await store.claim_rehearsal(wanted(number, limit=8)) for number in (3, 4, 3)]
    assert draws[0] == draws[2] != draws[1]
    for drawn in draws:
        assert len(drawn) == 8
        assert {p.id for p in drawn} <= {p.id for p in first}
        assert not {p.id for p in drawn} & {p.id for p in rejected}
    assert await store.claim_rehearsal(wanted(5, accepts=lambda p: False)) == []
    assert await store.stats() == stats
    assert not {p.id for p in await store.claim_training(wanted(3, limit=60))} & {p.id for p in first}


async def test_a_rehearsal_takes_no_held_out_prompt_and_honours_the_tenants_share(make: Make) -> None:
    store = make(held_out_fraction=0.5)
    put(store, *(prompt(i, tenant="loud" if i % 4 else "quiet") for i in range(80)))
    held_out = {p.id for p in await store.claim_held_out(wanted(1, limit=80))}
    await store.claim_training(wanted(1, limit=80))
    await store.release(1, consumed=True)
    drawn = await store.claim_rehearsal(wanted(2, limit=10, share=0.5))
    assert not {p.id for p in drawn} & held_out
    assert [p.tenant for p in drawn].count("loud") <= 5


async def test_one_per_cluster(make: Make) -> None:
    store = make(held_out_fraction=1e-9)
    put(store, *(prompt(i, "the very same question, order 7") for i in range(5)), prompt(100))
    claimed = await store.claim_training(wanted())
    assert [p.source.offset for p in claimed] == [100, 4]
    assert (await store.stats()).clusters == 2


async def test_what_no_scorer_accepts_is_left(make: Make) -> None:
    store = make(held_out_fraction=1e-9)
    put(store, *(prompt(i) for i in range(10)))
    claimed = await store.claim_training(wanted(accepts=lambda p: p.source.offset % 2 == 0))
    assert [p.source.offset for p in claimed] == [8, 6, 4, 2, 0]


async def test_a_claim_looks_past_many_that_are_not_accepted(make: Make) -> None:
    store = make(held_out_fraction=1e-9)
    put(store, *(prompt(i) for i in range(1500)))
    claimed = await store.claim_training(wanted(limit=3, accepts=lambda p: p.source.offset < 2))
    assert [p.source.offset for p in claimed] == [1, 0]


async def test_no_tenant_gets_more_than_its_share(make: Make) -> None:
    store = make(held_out_fraction=1e-9)
    put(store, *(prompt(i, tenant="loud") for i in range(100, 400)), *(prompt(i, tenant="quiet") for i in range(20)))
    claimed = await store.claim_training(wanted(limit=20, share=0.5))
    assert [p.tenant for p in claimed].count("loud") == 10
    assert len(claimed) == 20


async def test_consumed_prompts_never_come_back(make: Make) -> None:
    store = make(held_out_fraction=1e-9)
    put(store, *(prompt(i) for i in range(4)))
    await store.claim_training(wanted(1))
    await store.release(1, consumed=True)
    await store.release(1, consumed=False)
    assert await store.claim_training(wanted(2)) == []
    assert (await store.stats()).train_available == 0
    assert (await store.stats()).train == 4


async def test_returned_prompts_come_back_until_the_cap_on_attempts(make: Make) -> None:
    store = make(held_out_fraction=1e-9)
    put(store, *(prompt(i) for i in range(4)))
    for round_id in (1, 2):
        assert len(await store.claim_training(wanted(round_id))) == 4
        await store.release(round_id, consumed=False)
        await store.release(round_id, consumed=False)
    assert (await store.stats()).train_available == 0
    assert await store.claim_training(wanted(3)) == []


async def test_prompts_of_a_round_that_tried_none_keep_their_tries(make: Make) -> None:
    store = make(held_out_fraction=1e-9)
    put(store, *(prompt(i) for i in range(4)))
    for round_id in (1, 2, 3, 4):
        assert len(await store.claim_training(wanted(round_id))) == 4
        await store.release(round_id, consumed=False, tried=False)
    assert (await store.stats()).train_available == 4


async def test_fewer_than_the_least_are_not_claimed(make: Make) -> None:
    store = make(held_out_fraction=0.5)
    put(store, *(prompt(i) for i in range(40)))
    before = await store.stats()
    little = replace(wanted(limit=40), least=39)
    assert 0 < len(await store.claim_held_out(little)) == await store.claimable(Split.HELD_OUT, little) < 39
    assert 0 < len(await store.claim_training(little)) == await store.claimable(Split.TRAIN, little) < 39
    assert await store.stats() == before, "nothing is claimed, and nothing burned"
    put(store, *(prompt(i) for i in range(40, 200)))
    held_out, trained = await store.claim_held_out(little), await store.claim_training(little)
    assert len(held_out) == len(trained) == 40
    assert await store.claim_held_out(replace(little, least=100)) == held_out, "what is claimed stays claimed"


async def test_an_ended_round_claims_nothing(store: PromptStore) -> None:
    put(store, *(prompt(i) for i in range(20)))
    await store.release(7, consumed=False)
    with pytest.raises(PromptStoreError, match="round 7 has ended"):
        await store.claim_training(wanted(7))
    with pytest.raises(PromptStoreError, match="round 7 has ended"):
        await store.claim_held_out(wanted(7))


async def test_held_out_prompts_are_burned_with_their_cluster(make: Make) -> None:
    store = make(held_out_fraction=1 - 1e-9)
    put(store, *(prompt(i) for i in range(6)), *(prompt(i, "one question of many") for i in range(50, 53)))
    first = await store.claim_held_out(wanted(1, limit=4))
    assert [p.source.offset for p in first] == [52, 5, 4, 3]
    assert await store.claim_held_out(wanted(1, limit=4)) == first
    assert (await store.stats()).held_out_available == 3
    put(store, prompt(60, "one question of many"))
    assert (await store.stats()).held_out_available == 3, "a burned cluster stays burned for new members"
    await store.release(1, consumed=False)
    second = await store.claim_held_out(wanted(2))
    assert [p.source.offset for p in second] == [2, 1, 0]
    assert await store.claim_training(wanted(2)) == []


async def test_concurrent_calls_from_several_loops_and_threads(store: PromptStore) -> None:
    def work(start: int) -> list[str]:
        put(store, *(prompt(i) for i in range(start, start + 50)))
        return [p.id for p in asyncio.run(_claim(start))]

    async def _claim(start: int) -> Any:
        return await store.claim_training(wanted(start + 1, limit=10))

    claims = await asyncio.gather(*(asyncio.to_thread(work, start) for start in range(0, 400, 50)))
    taken = [prompt_id for claim in claims for prompt_id in claim]
    assert len(taken) == len(set(taken)) == 80


async def test_each_commit_is_told(make: Make) -> None:
    told: list[Signal] = []
    store = make(emit=told.append)
    done = put(store, prompt(1), prompt(2))
    put(store, prompt(2))
    put(store, offsets={("prompts", 0): 3})
    assert [each for each in told if isinstance(each, PromptsBuffered)] == [
        PromptsBuffered(done.train, done.held_out, 0, 0),
        PromptsBuffered(0, 0, 0, 1),
    ]


async def test_a_shadow_gets_the_newest_untouched_prompts_in_order_of_arrival_once(make: Make) -> None:
    store = make(held_out_fraction=0.01)
    await asyncio.wrap_future(store.submit(Ingest(tuple(prompt(n) for n in range(40)), {})))
    trained = {each.id for each in await store.claim_training(wanted(limit=5))}
    await store.release(1, consumed=False)
    first = await store.claim_shadow(6, 1.0, lambda each: True)
    second = await store.claim_shadow(6, 1.0, lambda each: True)
    assert [each.received_at for each in first] == sorted(each.received_at for each in first)
    assert len(first) == len(second) == 6
    assert min(each.received_at for each in first) > max(each.received_at for each in second), "newest first"
    shadowed = {each.id for each in (*first, *second)}
    assert len(shadowed) == 12
    assert not shadowed & trained, "a rejected round trained on them too"
    claimed = {each.id for each in await store.claim_training(wanted(2, limit=40))}
    assert claimed
    assert not claimed & shadowed, "what was shadowed never trains"


async def test_shadowed_prompts_that_are_returned_are_as_if_never_claimed(make: Make) -> None:
    store = make(held_out_fraction=0.01)
    await asyncio.wrap_future(store.submit(Ingest(tuple(prompt(n) for n in range(20)), {})))
    before = await store.stats()
    first = [each.id for each in await store.claim_shadow(6, 1.0, lambda each: True)]
    assert (await store.stats()).train_available == before.train_available - 6
    for _ in range(2):
        await store.return_shadowed([*first[:4], "erased meanwhile"])
    assert (await store.stats()).train_available == before.train_available - 2
    again = [each.id for each in await store.claim_shadow(6, 1.0, lambda each: True)]
    assert set(first[:4]) < set(again)
    assert not set(first[4:]) & set(again)


async def test_returning_takes_no_prompt_from_a_round(make: Make) -> None:
    store = make(held_out_fraction=0.01)
    await asyncio.wrap_future(store.submit(Ingest(tuple(prompt(n) for n in range(20)), {})))
    claimed = [each.id for each in await store.claim_training(wanted(limit=5))]
    await store.return_shadowed(claimed)
    assert not {each.id for each in await store.claim_training(wanted(2, limit=20))} & set(claimed)


async def test_a_cluster_with_a_trained_member_is_not_shadowed(make: Make) -> None:
    store = make(held_out_fraction=0.01)
    text = "the very same words in one long sentence about a printer that does not print"
    await asyncio.wrap_future(store.submit(Ingest((prompt(1, text),), {})))
    assert len(await store.claim_training(wanted(limit=1))) == 1, "the salt puts this cluster into training"
    await asyncio.wrap_future(store.submit(Ingest((prompt(2, text),), {})))
    assert await store.claim_shadow(5, 1.0, lambda each: True) == []


class Life(RuleBasedStateMachine):
    """Arrivals, claims, releases and restarts in any order: the splits never meet."""

    build: Make

    @initialize()
    def begin(self) -> None:
        self.store = self.build(held_out_fraction=0.4, similarity=0.5)
        self.arrived = 0
        self.trained: set[str] = set()
        self.gated: set[str] = set()
        self.open: dict[int, set[str]] = {}
        self.rounds = 0

    @rule(texts=st.lists(st.integers(0, 11), min_size=1, max_size=12), cut=st.integers(1, 9))
    def arrive(self, texts: list[int], cut: int) -> None:
        batch = []
        for text in texts:
            left, right = sentence(text), sentence((text * 7 + cut) % 12)
            words = left[: 9 - cut // 3] + right[9 - cut // 3 :]
            batch.append(prompt(self.arrived, " ".join(words), at=float(self.arrived % 5)))
            self.arrived += 1
        put(self.store, *batch)

    @rule(limit=st.integers(1, 6))
    def train(self, limit: int) -> None:
        self.rounds += 1
        claim = wanted(self.rounds, limit)
        claimed = asyncio.run(_both(self.store, claim))
        training, held_out = ({p.id for p in prompts} for prompts in claimed)
        assert not held_out & self.gated, "a gate got a prompt that another one had"
        assert not training & set().union(*self.open.values()), "two rounds have the same prompt"
        self.trained |= training
        self.gated |= held_out
        self.open[self.rounds] = training

    @rule(consumed=st.booleans())
    def end(self, consumed: bool) -> None:
        if self.open:
            asyncio.run(self.store.release(next(iter(self.open)), consumed=consumed))
            self.open.pop(next(iter(self.open)))

    @rule()
    def restart(self) -> None:
        if isinstance(self.store, DuckDBStore):
            self.store.close()
            self.store = self.build(held_out_fraction=0.4, similarity=0.5)

    @invariant()
    def held_out_never_trains(self) -> None:
        assert not self.trained & self.gated


def sentence(number: int) -> list[str]:
    return [WORDS[(number * (place + 1) + place) % 12] + WORDS[(number + place * place) % 12] for place in range(10)]


async def _both(store: PromptStore, claim: Claim) -> tuple[Any, Any]:
    return await store.claim_training(claim), await store.claim_held_out(claim)


def test_held_out_never_trains_whatever_happens(make: Make, tmp_path: Path) -> None:
    class Lives(Life):
        build = staticmethod(make)

        def teardown(self) -> None:
            self.store.close()
            (tmp_path / "tao.duckdb").unlink(missing_ok=True)

    quick = settings(max_examples=6, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Lives, settings=quick)


async def test_reads_prompts_by_identifier_and_leaves_out_what_is_not_there(store: PromptStore) -> None:
    prompts = [prompt(i, tenant=f"t{i}") for i in range(5)]
    put(store, *prompts)
    found = await store.read([prompts[3].id, "f" * 32, prompts[0].id])
    assert found == {prompts[3].id: prompts[3], prompts[0].id: prompts[0]}
    assert await store.read([]) == {}


async def test_details_of_an_empty_buffer(store: PromptStore) -> None:
    details = await store.details()
    assert (details.tenants, details.tenant_count) == ((), 0)
    assert (details.oldest, details.newest) == (None, None)
    assert (details.claimed, details.exhausted) == (0, 0)


async def test_details_name_the_largest_tenants_and_the_ends_of_time(store: PromptStore) -> None:
    prompts = [prompt(i, tenant=f"t{i % 25:02}", at=1000.0 + i) for i in range(60)]
    put(store, *prompts)
    details = await store.details()
    assert details.tenant_count == 25
    assert len(details.tenants) == 20
    assert details.tenants[:2] == (("t00", 3), ("t01", 3))
    assert details.tenants[10:12] == (("t10", 2), ("t11", 2))
    assert (details.oldest, details.newest) == (1000.0, 1059.0)


async def test_details_count_what_a_round_holds_and_what_was_tried_too_often(make: Make) -> None:
    store = make(held_out_fraction=1e-9, max_attempts=2)
    put(store, *(prompt(i) for i in range(6)))
    for round_id, exhausted in ((1, 0), (2, 2), (3, 6)):
        assert len(await store.claim_training(wanted(round_id, limit=4))) == 4
        assert (await store.details()).claimed == 4
        await store.release(round_id, consumed=False)
        details = await store.details()
        assert (details.claimed, details.exhausted) == (0, exhausted)
