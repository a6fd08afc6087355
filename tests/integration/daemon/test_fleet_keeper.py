"""The keeper's logic, on a fleet in memory and a clock of ours. On a real server: test_fleet_keeper_vllm."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tao_daemon.daemon.fleet_keeper import FleetKeeper
from tao_daemon.daemon.keeping import Desired, KeeperParts, KeeperSettings
from tao_daemon.domain.adapter import AdapterRecord, Fingerprint, Lineage
from tao_daemon.domain.errors import AdapterError, ServerUnfit, UpstreamError
from tao_daemon.domain.events import AdapterDeleted, AdapterUnservable, Event, ReplicaDrifted, ReplicaHealed
from tao_daemon.domain.ports import AdapterStore
from tao_daemon.domain.rollout import Routes
from tao_daemon.rollout.memory_fleet import MemoryFleet

A, B = "http://a", "http://b"
ONE, TWO, THREE, FOUR = (f"r{number:06d}-aaaaaaaaaaaa" for number in (1, 2, 3, 4))
HOME = Path("/store")
LEASE, DRAIN, VERIFY, TOUCH = 10.0, 120.0, 600.0, 60.0


class Shelf:
    """Adapters by name; `broken` ones do not match their digests."""

    def __init__(self, names: Sequence[str]) -> None:
        self.root = HOME
        self.stock = sorted(names)
        self.broken: set[str] = set()

    def publish(self, directory: str, lineage: Lineage, created_at: float) -> AdapterRecord:
        raise AssertionError("the keeper publishes nothing")

    def get(self, name: str) -> AdapterRecord:
        if name in self.broken or name not in self.stock:
            raise AdapterError(f"{name}: adapter_model.safetensors was changed")
        return AdapterRecord(
            name, name * 3, HOME / name, 8, 0.0, Lineage(1, None, "b", "", (), (), ""), Fingerprint(())
        )

    def names(self) -> Sequence[str]:
        return tuple(self.stock)

    def delete(self, name: str) -> None:
        self.stock = [each for each in self.stock if each != name]


class Watched(MemoryFleet):
    """Remembers every load that a request could have met before it was verified."""

    def __init__(self, world: World) -> None:
        super().__init__([A, B])
        self.world = world
        self.exposed: list[tuple[str, str]] = []

    async def heal(self, url: str, adapters: Sequence[AdapterRecord]) -> str:
        for adapter in adapters:
            missing = adapter.name not in self.loaded[url] or (url, adapter.name) in self.untrue
            if missing and self.world.may_ask(url, adapter.name):
                self.exposed.append((url, adapter.name))
        return await super().heal(url, adapters)


class World:
    """The state, its machine as far as replicas go, one gateway, and the time."""

    def __init__(self, *, taking: bool = True) -> None:
        self.now = 1000.0
        self.routes = Routes(1, ONE)
        self.candidates: tuple[str, ...] = ()
        self.proven: tuple[str, ...] = ()
        self.kept: tuple[str, ...] = ()
        self.events: list[Event] = []
        self.taking = taking
        self.gateway: Routes | None = self.routes
        self.behind_since: float | None = None
        self.in_flight: set[str] = set()
        self.fleet = Watched(self)
        self.shelf = Shelf([ONE, TWO, THREE, FOUR])
        adapters: AdapterStore = self.shelf
        self.parts = KeeperParts(
            fleet=self.fleet,
            adapters=adapters,
            desired=lambda: Desired(self.routes, self.candidates, self.proven, self.kept),
            acknowledged=lambda generation: self.gateway is None or self.gateway.generation >= generation,
            drained=self.drained,
            post=self.post,
            settings=KeeperSettings(LEASE, 5.0, DRAIN, keep_adapters=2),
            monotonic=lambda: self.now,
        )
        self.keeper = FleetKeeper(self.parts)

    def post(self, event: Event) -> None:
        self.events.append(event)
        if self.taking:
            self.take(event)

    def take(self, event: Event) -> None:
        unready = set(self.routes.unready)
        if isinstance(event, ReplicaDrifted):
            unready.add(event.url)
        elif isinstance(event, ReplicaHealed):
            unready.discard(event.url)
        if unready != set(self.routes.unready):
            self.route(unready=tuple(sorted(unready)))

    def route(self, **changes: Any) -> None:
        self.routes = replace(self.routes, generation=self.routes.generation + 1, **changes)
        if self.behind_since is None:
            self.behind_since = self.now

    def drained(self, name: str) -> bool:
        return name not in self.in_flight and (self.gateway is None or name not in self.gateway.named)

    def may_ask(self, url: str, name: str) -> bool:
        """Whether the gateway may ask the replica for the adapter, and its lease is not over."""
        known = self.gateway
        if known is None or url in known.unready or name not in known.named:
            return False
        return self.behind_since is None or self.now - self.behind_since < LEASE

    def acknowledge(self) -> None:
        self.gateway, self.behind_since = self.routes, None

    async def begin(self) -> None:
        """ONE serves everywhere before anybody looks."""
        await self.fleet.serve(self.shelf.get(ONE))
        self.fleet.exposed.clear()
        self.fleet.calls.clear()

    async def settle(self, looks: int = 6) -> None:
        """Time passes, and the gateway keeps up."""
        for _ in range(looks):
            self.acknowledge()
            await self.keeper.look()
            self.now += 5.0
        self.acknowledge()

    def measured(self) -> list[tuple[str, str, str]]:
        return sorted(call for call in self.fleet.calls if call[0] != "touch")

    def told(self, kind: type[Event]) -> list[str]:
        return [
            event.url
            for event in self.events
            if isinstance(event, ReplicaDrifted | ReplicaHealed) and type(event) is kind
        ]


@pytest.fixture
async def world() -> World:
    made = World()
    await made.begin()
    await made.keeper.look()
    made.fleet.calls.clear()
    return made


async def test_what_is_as_it_should_be_is_verified_once_and_left_alone(world: World) -> None:
    await world.keeper.look()
    world.now += 5.0
    await world.keeper.look()
    assert world.events == []
    assert world.fleet.calls == []
    assert [(each.url, each.reachable, each.ready, each.problems) for each in world.keeper.report()] == [
        (A, True, True, ()),
        (B, True, True, ()),
    ]
    assert world.keeper.report()[0].adapters == (ONE,)


async def test_a_restarted_replica_is_unready_first_then_healed_then_ready(world: World) -> None:
    world.fleet.restart(A)
    await world.keeper.look()
    assert world.told(ReplicaDrifted) == [A]
    assert world.routes.unready == (A,)
    world.now += 1.0
    await world.keeper.look()
    assert not world.fleet.calls, "the gateway has not acknowledged"
    assert [each.ready for each in world.keeper.report()] == [False, True]
    world.acknowledge()
    await world.keeper.look()
    assert world.fleet.calls == [("heal", A, ONE)]
    assert world.told(ReplicaHealed) == [A]
    assert not world.routes.unready
    await world.settle()
    assert world.told(ReplicaDrifted) == [A]
    assert [each.ready for each in world.keeper.report()] == [True, True]
    assert world.fleet.exposed == []


async def test_a_gateway_that_never_acknowledges_holds_healing_up_for_its_lease_only(world: World) -> None:
    world.fleet.restart(A)
    await world.keeper.look()
    await world.keeper.look()
    world.now += LEASE - 0.1
    await world.keeper.look()
    assert world.told(ReplicaHealed) == []
    world.now += 0.1
    await world.keeper.look()
    assert world.told(ReplicaHealed) == [A]


async def test_a_drift_is_told_once_and_again_only_when_nothing_came_of_it(world: World) -> None:
    world.taking = False
    world.fleet.restart(A)
    for _ in range(3):
        await world.keeper.look()
        world.now += 3.0
    assert world.told(ReplicaDrifted) == [A]
    assert world.fleet.calls == []
    world.now += LEASE
    await world.keeper.look()
    assert world.told(ReplicaDrifted) == [A, A]


async def test_once_told_that_it_is_healed_nothing_is_loaded_behind_the_gateways_backs(world: World) -> None:
    world.fleet.restart(A)
    await world.keeper.look()
    world.acknowledge()
    world.taking = False
    await world.keeper.look()
    assert world.told(ReplicaHealed) == [A]
    world.fleet.restart(A)
    await world.keeper.look()
    assert world.fleet.calls == [("heal", A, ONE)], "any moment the routes may call it ready"
    world.taking = True
    world.take(world.events[-1])
    await world.settle()
    assert world.told(ReplicaDrifted) == world.told(ReplicaHealed) == [A, A]
    assert world.fleet.exposed == []


async def test_a_restart_that_lists_everything_is_not_believed(world: World) -> None:
    """A server may load adapters by itself when it starts; nobody has measured those."""
    world.fleet.processes[B] = 99.0
    await world.keeper.look()
    assert world.told(ReplicaDrifted) == [B]


async def test_a_daemon_that_comes_back_measures_what_serves_and_disturbs_nothing(world: World) -> None:
    second = FleetKeeper(world.parts)
    await second.look()
    assert world.events == []
    assert world.measured() == [("verify", A, ONE), ("verify", B, ONE)]


async def test_a_daemon_that_died_while_healing_waits_again_and_heals(world: World) -> None:
    world.fleet.restart(A)
    await world.keeper.look()
    second = FleetKeeper(world.parts)
    await second.look()
    assert world.measured() == [("verify", B, ONE)], "the gateway has not acknowledged"
    world.acknowledge()
    await second.look()
    assert world.told(ReplicaHealed) == [A]


async def test_what_is_not_truly_served_is_found_when_it_is_measured_again(world: World) -> None:
    world.fleet.untrue.add((B, ONE))
    await world.keeper.look()
    assert world.events == []
    world.now += VERIFY
    await world.settle()
    assert world.told(ReplicaDrifted) == world.told(ReplicaHealed) == [B]
    assert world.fleet.untrue == set()
    assert world.fleet.exposed == []


async def test_what_is_swapped_in_while_a_replica_answers_is_no_drift(world: World) -> None:
    original = MemoryFleet.observe

    async def observe(url: str) -> Any:
        view = await original(world.fleet, url)
        if TWO not in world.fleet.serving:
            await world.fleet.serve(world.shelf.get(TWO))
            world.route(adapter=TWO, previous=ONE)
        return view

    world.fleet.observe = observe  # type: ignore[method-assign]
    await world.keeper.look()
    await world.keeper.look()
    assert world.events == []
    assert ("verify", A, TWO) in world.fleet.calls


async def test_another_path_under_the_name_is_a_drift(world: World) -> None:
    world.fleet.loaded[A][ONE] = "/elsewhere/" + ONE
    await world.keeper.look()
    assert "from /elsewhere/" in world.events[0].reason  # type: ignore[union-attr]


async def test_broken_files_are_never_loaded_and_do_not_end_what_serves(world: World) -> None:
    world.shelf.broken.add(ONE)
    world.now += VERIFY
    await world.settle()
    assert world.events == []
    assert world.fleet.serving == {ONE}
    assert "was changed" in world.keeper.report()[0].problems[0]
    world.fleet.restart(A)
    await world.settle(20)
    assert world.told(ReplicaDrifted) == [A]
    assert world.told(ReplicaHealed) == []
    assert world.fleet.loaded[A] == {}
    assert not world.keeper.report()[0].ready
    world.shelf.broken.clear()
    await world.settle(20)
    assert world.told(ReplicaHealed) == [A]
    assert [each.problems for each in world.keeper.report()] == [(), ()]


async def test_a_replica_that_stays_broken_is_tried_less_and_less_and_holds_up_nobody(world: World) -> None:
    world.fleet.failures[ONE] = UpstreamError("the engine is dead", 500)
    world.fleet.restart(A)
    await world.settle(120)
    tries = [call for call in world.fleet.calls if call[0] == "heal"]
    assert 8 <= len(tries) <= 16, "600 s with pauses of 5, 10, 20, 40, 60, 60 … s"
    assert [call for call in world.fleet.calls if call[:2] == ("touch", B)]
    assert "the engine is dead" in world.keeper.report()[0].problems[-1]


async def test_an_unreachable_replica_is_told_once_and_left_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.fleet.down.add(A)
    for _ in range(3):
        await world.keeper.look()
    assert [record.message for record in caplog.records] == ["replica is unreachable"]
    assert world.events == []
    status = world.keeper.report()[0]
    assert (status.reachable, status.ready, status.adapters) == (False, False, ())
    assert "it is down" in status.problems[0]
    world.fleet.restart(A)
    world.fleet.down.clear()
    await world.settle()
    assert world.told(ReplicaHealed) == [A]
    assert world.fleet.exposed == []


async def test_an_outage_without_a_restart_changes_nothing(world: World) -> None:
    world.fleet.down.add(A)
    await world.keeper.look()
    world.fleet.down.clear()
    await world.keeper.look()
    assert world.events == []
    assert world.fleet.calls == []


async def test_a_server_that_does_not_tell_its_process_is_measured_again_after_an_outage(world: World) -> None:
    world.fleet.processes[A] = None
    keeper = FleetKeeper(world.parts)
    await keeper.look()
    world.fleet.calls.clear()
    world.fleet.down.add(A)
    await keeper.look()
    world.fleet.down.clear()
    await keeper.look()
    assert world.fleet.calls == [("verify", A, ONE)]


async def test_everything_that_routes_name_is_healed_and_candidates_too(world: World) -> None:
    world.candidates = (FOUR,)
    world.route(previous=TWO, candidate=THREE, fraction=0.1)
    for name in (TWO, THREE, FOUR):
        await world.fleet.serve(world.shelf.get(name))
    await world.settle()
    world.fleet.calls.clear()
    world.fleet.restart(A)
    await world.settle()
    healed = [name for operation, _, name in world.fleet.calls if operation == "heal"]
    assert healed == [ONE, THREE, TWO, FOUR], "the most important first"
    assert world.told(ReplicaHealed) == [A]


async def test_the_first_load_of_a_candidate_is_the_swaps(world: World) -> None:
    world.candidates = (TWO,)
    await world.settle()
    assert [call for call in world.fleet.calls if call[0] == "heal"] == []


async def test_a_shadowed_candidate_comes_back_when_daemon_and_servers_restart_together(world: World) -> None:
    world.candidates = world.proven = (TWO,)
    await world.fleet.serve(world.shelf.get(TWO))
    for url in (A, B):
        world.fleet.restart(url)
    world.keeper = FleetKeeper(world.parts)
    await world.settle()
    assert world.fleet.serving == {ONE, TWO}


async def test_a_candidate_that_cannot_be_restored_ends_no_readiness(world: World) -> None:
    world.candidates = (TWO,)
    await world.fleet.serve(world.shelf.get(TWO))
    await world.keeper.look()
    world.fleet.failures[TWO] = AdapterError("refused")
    world.fleet.restart(A)
    await world.settle(10)
    assert world.told(ReplicaHealed) == [A]
    assert world.keeper.report()[0].ready
    assert "refused" in world.keeper.report()[0].problems
    assert AdapterUnservable(TWO, "refused") in world.events


@pytest.mark.parametrize(
    ("error", "told"), [(AdapterError("refused"), 1), (ServerUnfit("slots"), 0), (UpstreamError("down"), 0)]
)
async def test_an_adapter_that_cannot_be_given_to_a_replica_is_told_once(
    world: World, error: AdapterError | UpstreamError, told: int
) -> None:
    """The machine ends its rollout, and what is left heals."""
    world.route(candidate=TWO, fraction=0.1)
    await world.fleet.serve(world.shelf.get(TWO))
    await world.settle()
    world.fleet.failures[TWO] = error
    world.fleet.restart(A)
    await world.settle(10)
    assert [event for event in world.events if isinstance(event, AdapterUnservable)] == told * [
        AdapterUnservable(TWO, "refused")
    ]
    assert world.told(ReplicaHealed) == []
    assert set(world.fleet.loaded[A]) == {ONE}
    world.route(candidate=None, fraction=0.0)
    await world.settle(15)
    assert world.told(ReplicaHealed) == [A]


async def test_what_routes_name_meanwhile_is_healed_before_it_is_ready(world: World) -> None:
    world.fleet.restart(A)
    await world.keeper.look()
    world.acknowledge()
    original = Watched.heal

    async def heal(url: str, adapters: Sequence[AdapterRecord]) -> str:
        detail = await original(world.fleet, url, adapters)
        if world.routes.candidate is None:
            world.route(candidate=TWO, fraction=0.1)
        return detail

    world.fleet.heal = heal  # type: ignore[method-assign]
    await world.keeper.look()
    assert world.told(ReplicaHealed) == []
    await world.keeper.look()
    assert world.told(ReplicaHealed) == [A]
    assert set(world.fleet.loaded[A]) == {ONE, TWO}


async def test_an_undo_to_the_base_model_waits_for_no_healing_and_frees_the_replica(world: World) -> None:
    world.fleet.failures[ONE] = AdapterError("refused")
    world.fleet.restart(A)
    await world.settle(3)
    assert world.routes.unready == (A,)
    world.route(adapter=None)
    world.now += 60.0
    await world.settle(3)
    assert world.told(ReplicaHealed) == [A]


async def test_what_nobody_wants_is_unloaded_when_no_request_is_on_it(world: World) -> None:
    await world.fleet.serve(world.shelf.get(TWO))
    world.in_flight = {TWO}
    world.fleet.loaded[A]["customer"] = "/models/customer"
    world.fleet.loaded[A]["alias"] = f"{HOME}/{TWO}"
    await world.keeper.look()
    assert world.fleet.serving == {ONE, TWO}
    world.in_flight = set()
    await world.keeper.look()
    assert world.fleet.serving == {ONE}
    assert set(world.fleet.loaded[A]) == {ONE, "customer", "alias"}


async def test_what_nobody_wants_is_unloaded_after_the_longest_drain(world: World) -> None:
    await world.fleet.serve(world.shelf.get(TWO))
    world.in_flight = {TWO}
    await world.keeper.look()
    world.now += DRAIN - 1.0
    await world.keeper.look()
    world.candidates = (TWO,)
    await world.keeper.look()
    world.candidates = ()
    world.now += 1.0
    await world.keeper.look()
    assert TWO in world.fleet.serving, "it was wanted in between: its time began again"
    world.now += DRAIN
    await world.keeper.look()
    assert world.fleet.serving == {ONE}


async def test_adapters_are_kept_warm(world: World) -> None:
    world.candidates = (TWO,)
    await world.fleet.serve(world.shelf.get(TWO))
    await world.keeper.look()
    world.fleet.calls.clear()
    for _ in range(24):
        world.now += 5.0
        await world.keeper.look()
    touched = [call for call in world.fleet.calls if call[0] == "touch"]
    assert sorted(touched) == sorted(2 * [("touch", url, name) for url in (A, B) for name in (ONE, TWO)])


async def test_files_go_when_nothing_needs_them_and_every_server_was_seen(world: World) -> None:
    world.kept = ()
    await world.keeper.collect()
    assert world.shelf.stock == [ONE, THREE, FOUR], "the newest two, and what routes name"
    assert world.events == [AdapterDeleted(TWO, "not needed, and older than the newest 2")]


@pytest.mark.parametrize("holder", ["kept", "candidates", "listed", "alias"])
async def test_files_stay_while_anything_needs_them(world: World, holder: str) -> None:
    if holder == "kept":
        world.kept = (TWO,)
    elif holder == "candidates":
        world.candidates = (TWO,)
    else:
        world.fleet.loaded[B][TWO if holder == "listed" else "assistant"] = f"{HOME}/{TWO}"
        world.in_flight = {TWO}
    await world.keeper.look()
    await world.keeper.collect()
    assert TWO in world.shelf.stock


async def test_no_file_goes_while_a_replica_cannot_be_observed(world: World) -> None:
    await FleetKeeper(world.parts).collect()
    world.fleet.down.add(B)
    await world.keeper.look()
    await world.keeper.collect()
    assert len(world.shelf.stock) == 4


async def test_it_runs_by_itself_looks_when_nudged_and_ends_when_cancelled() -> None:
    world = World()
    world.parts = replace(world.parts, settings=replace(world.parts.settings, reconcile_seconds=3600.0))
    await world.begin()
    keeper = FleetKeeper(world.parts)
    task = asyncio.create_task(keeper.run())
    async with asyncio.timeout(10):
        while not keeper.report()[0].reachable:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        world.fleet.restart(A)
        for kind in (ReplicaDrifted, ReplicaHealed):
            keeper.nudge()
            while not world.told(kind):
                await asyncio.sleep(0.01)
            world.acknowledge()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_replica_that_hangs_holds_up_no_other() -> None:
    world = World()
    world.parts = replace(world.parts, settings=replace(world.parts.settings, observe_seconds=0.3))
    await world.begin()
    original = MemoryFleet.observe

    async def observe(url: str) -> Any:
        if url == A:
            await asyncio.sleep(3600)
        return await original(world.fleet, url)

    world.fleet.observe = observe  # type: ignore[method-assign]
    keeper = FleetKeeper(world.parts)
    task = asyncio.create_task(keeper.run())
    async with asyncio.timeout(10):
        while not keeper.report()[1].ready:
            await asyncio.sleep(0.01)
        while not keeper.report()[0].problems:
            await asyncio.sleep(0.01)
    assert "did not answer in time" in keeper.report()[0].problems[0]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_bug_is_not_swallowed() -> None:
    world = World()

    async def observe(url: str) -> Any:
        raise AssertionError("a bug")

    world.fleet.observe = observe  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup):
        await FleetKeeper(world.parts).run()


class Life(RuleBasedStateMachine):
    """Whatever happens in whatever order: no request meets an unverified load, and everything heals in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(taking=False)
        self.loop = asyncio.new_event_loop()
        self.taken = 0
        self.do(self.world.begin())

    def do(self, work: Coroutine[Any, Any, Any]) -> None:
        self.loop.run_until_complete(work)

    @rule(url=st.sampled_from([A, B]))
    def restart(self, url: str) -> None:
        self.world.fleet.restart(url)

    @rule(url=st.sampled_from([A, B]), name=st.sampled_from([ONE, TWO]))
    def lose(self, url: str, name: str) -> None:
        self.world.fleet.loaded[url].pop(name, None)

    @rule(url=st.sampled_from([A, B]))
    def break_down_or_return(self, url: str) -> None:
        self.world.fleet.down ^= {url}

    @rule()
    def look(self) -> None:
        self.do(self.world.keeper.look())

    @rule(seconds=st.sampled_from([0.5, 5.0, 11.0, 130.0, 700.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.now += seconds

    @rule()
    def acknowledge(self) -> None:
        self.world.acknowledge()

    @precondition(lambda self: self.taken < len(self.world.events))
    @rule()
    def take_an_event(self) -> None:
        self.world.take(self.world.events[self.taken])
        self.taken += 1

    @rule()
    def swap(self) -> None:
        """A new adapter serves, as a swap does it: loaded and verified everywhere, then routed."""
        world = self.world
        known = world.gateway.named if world.gateway else ()
        fresh = [name for name in (ONE, TWO, THREE, FOUR) if name not in (*world.routes.named, *known)]
        if not fresh:
            return
        name = fresh[0]
        world.candidates = (name,)
        try:
            self.do(world.fleet.serve(world.shelf.get(name)))
        except UpstreamError:
            return
        finally:
            world.candidates = ()
        world.route(adapter=name, previous=world.routes.adapter)

    @rule()
    def restart_the_daemon(self) -> None:
        self.world.keeper = FleetKeeper(self.world.parts)

    @invariant()
    def nothing_unverified_was_asked(self) -> None:
        assert self.world.fleet.exposed == []

    def teardown(self) -> None:
        world = self.world
        world.fleet.down.clear()
        while self.taken < len(world.events):
            self.take_an_event()
        world.taking = True
        self.do(world.settle(30))
        for url in (A, B):
            assert set(world.fleet.loaded[url]) >= set(world.routes.named)
        assert world.routes.unready == ()
        assert [(each.ready, each.problems) for each in world.keeper.report()] == [(True, ()), (True, ())]
        assert world.fleet.exposed == []
        self.loop.close()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
