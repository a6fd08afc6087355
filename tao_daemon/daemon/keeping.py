"""What keeping the servers needs, and what it tells."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tao_daemon.daemon.state import State
from tao_daemon.domain.events import Event
from tao_daemon.domain.ports import AdapterStore, Fleet
from tao_daemon.domain.rollout import RolloutPhase, Routes


@dataclass(frozen=True, slots=True)
class Desired:
    """What the state wants of the servers and of the store."""

    routes: Routes
    candidates: tuple[str, ...] = ()
    """Adapters that no route names but that must be loaded: staged, in the shadow, under evaluation."""
    proven: tuple[str, ...] = ()
    """What every server served once, maybe before our start: one that lacks it has lost it."""
    kept: tuple[str, ...] = ()
    """Adapters whose files must stay, loaded or not: those that served, and a running round's."""

    @property
    def generation(self) -> int:
        return self.routes.generation

    @property
    def routed(self) -> tuple[str, ...]:
        """What a request may be bound to, most important first."""
        names = (self.routes.adapter, self.routes.candidate, self.routes.previous)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    @property
    def resident(self) -> tuple[str, ...]:
        """What every server should have, most important first."""
        return tuple(dict.fromkeys((*self.routed, *self.candidates)))


@dataclass(frozen=True, slots=True)
class KeeperSettings:
    lease_seconds: float
    reconcile_seconds: float
    drain_seconds: float
    keep_adapters: int
    observe_seconds: float = 20.0
    """A replica that has not said what it has by then counts as unreachable."""
    touch_seconds: float = 60.0
    """A server evicts the adapter that was used longest ago: each is used at least so often."""
    verify_seconds: float = 600.0
    """What is loaded is measured again so often: an evicted adapter comes back from its files, whatever they are."""
    collect_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class KeeperParts:
    """What keeping needs. None of the callables may block.

    `acknowledged(generation)`: every live gateway uses routes of that generation or a later one; False while it is
    not known who lives, as just after a start. `drained(name)`: no live gateway has a request on the adapter, and
    all acknowledged routes that do not name it.
    """

    fleet: Fleet
    adapters: AdapterStore
    desired: Callable[[], Desired]
    acknowledged: Callable[[int], bool]
    drained: Callable[[str], bool]
    post: Callable[[Event], None]
    settings: KeeperSettings
    monotonic: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """For status and metrics."""

    url: str
    reachable: bool
    version: str
    adapters: tuple[str, ...]
    ready: bool
    """It may be asked for adapters."""
    problems: tuple[str, ...]


class Departures:
    """When adapters that are still loaded were first seen to be wanted no more."""

    def __init__(self, parts: KeeperParts) -> None:
        self._parts = parts
        self._since: dict[str, float] = {}

    def note(self, resident: Sequence[str]) -> None:
        """These are wanted: should they leave again, their time begins again."""
        for name in resident:
            self._since.pop(name, None)

    def may_unload(self, name: str) -> bool:
        """Whether no request is on it, or the longest time to wait for that is over."""
        now = self._parts.monotonic()
        since = self._since.setdefault(name, now)
        return now - since >= self._parts.settings.drain_seconds or self._parts.drained(name)


def desired_of(state: State) -> Desired:
    """What a state wants loaded, and whose files it wants kept."""
    rollout, running = state.open_rollout, state.round or (state.closing.round if state.closing else None)
    evaluated = state.round.candidate if state.round else None
    waiting = (rollout.adapter if rollout else None, state.returning.adapter if state.returning else None, evaluated)
    kept = (*waiting, running.candidate if running else None, *state.served)
    return Desired(
        state.routes,
        candidates=tuple(dict.fromkeys(name for name in waiting if name and name not in state.routes.named)),
        proven=(rollout.adapter,) if rollout and rollout.phase is not RolloutPhase.STAGED else (),
        kept=tuple(dict.fromkeys(name for name in kept if name)),
    )
