"""Keeps one replica as it should be: everything that routes name is loaded and verified, or it gets no such request.

Invariants: what a replica lost is loaded again only after every live gateway knows that it is unready, or its lease
is over; it is ready again only after a fingerprint of all that routes name. Where it stands is in the routes and on
the server: a restart of ours changes nothing.

look → drifted → unready in the routes → acknowledged → healed → ready
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from tao_daemon.daemon.keeping import Departures, Desired, KeeperParts, ReplicaStatus
from tao_daemon.domain.adapter import AdapterRecord
from tao_daemon.domain.errors import AdapterError, ServerUnfit, TaoError, UpstreamError
from tao_daemon.domain.events import AdapterUnservable, ReplicaDrifted, ReplicaHealed
from tao_daemon.domain.ports import ReplicaView
from tao_daemon.rollout.residency import Load, Reload, Unload, plan

log = logging.getLogger(__name__)

_SHORTEST_PAUSE = 0.1
"""Between two looks, however often somebody nudges."""
_FIRST_BACKOFF = 5.0
_LONGEST_BACKOFF = 60.0


class ReplicaKeeper:
    """One replica."""

    def __init__(self, url: str, parts: KeeperParts, departures: Departures) -> None:
        self._url = url
        self._parts = parts
        self._departures = departures
        self._wake = asyncio.Event()
        self._view: ReplicaView | None = None
        self._process: float | None = None
        self._outage = ""
        self._drift = ""
        self._trouble = ""
        self._posted_at: float | None = None
        self._unready: tuple[int, float] | None = None
        self._verified: dict[str, float] = {}
        self._touched: dict[str, float] = {}
        self._seen: set[str] = set()
        self._refused: set[str] = set()
        self._backoff = _FIRST_BACKOFF
        self._retry_at = 0.0

    @property
    def loaded(self) -> Mapping[str, str] | None:
        """What the last look found loaded; None when it found nobody."""
        return self._view.loaded if self._view else None

    def nudge(self) -> None:
        self._wake.set()

    def status(self) -> ReplicaStatus:
        view, unready = self._view, self._url in self._parts.desired().routes.unready
        problems = (*(view.problems if view else ()), self._outage, self._drift, self._trouble)
        return ReplicaStatus(
            url=self._url,
            reachable=view is not None,
            version=view.version if view else "",
            adapters=tuple(view.loaded) if view else (),
            ready=view is not None and not unready and not self._drift,
            problems=tuple(dict.fromkeys(filter(None, problems))),
        )

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            await self.look()
            await asyncio.sleep(_SHORTEST_PAUSE)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()

    async def look(self) -> None:
        """Compare once, and do what can be done now."""
        before = self._parts.desired().routed
        try:
            async with asyncio.timeout(self._parts.settings.observe_seconds):
                view = await self._parts.fleet.observe(self._url)
        except (TimeoutError, UpstreamError) as error:
            self._lost(str(error) or f"{self._url} did not answer in time")
            return
        self._found(view)
        desired = self._parts.desired()
        self._departures.note(desired.resident)
        tried = self._may_try()
        try:
            if self._url in desired.routes.unready:
                await self._make_ready(desired)
            else:
                # What routes name only since the replica was asked may have been loaded since, too.
                await self._keep_ready(view, desired, [name for name in desired.routed if name in before])
            await self._clear(view)
        except (TaoError, OSError) as error:
            self._failed(str(error))
        else:
            if tried:
                self._forgive()

    def _lost(self, reason: str) -> None:
        if not self._outage:
            log.warning("replica is unreachable", extra={"url": self._url, "reason": reason})
        if self._process is None:
            # Whether it comes back as another process will not be told.
            self._verified.clear()
        self._outage, self._view = reason, None

    def _found(self, view: ReplicaView) -> None:
        if self._outage:
            log.info("replica is back", extra={"url": self._url})
        restarted = None not in (self._process, view.process) and self._process != view.process
        if restarted:
            self._verified.clear()
            self._forgive()
            if self._parts.desired().routed:
                self._drift = "it restarted, and has not been verified since"
        self._outage, self._view = "", view
        self._process = view.process if view.process is not None else self._process
        self._seen |= view.loaded.keys()

    async def _make_ready(self, desired: Desired) -> None:
        """Heal as soon as nobody can ask for what is not verified."""
        now, settings = self._now(), self._parts.settings
        if self._unready is None:
            self._unready, self._posted_at = (desired.generation, now), None
        generation, since = self._unready
        informed = self._parts.acknowledged(generation) or now - since >= settings.lease_seconds
        # Once told that it is healed, gateways may ask it at any moment: nothing is loaded behind their backs.
        if not informed or self._is_posted(now) or not self._may_try():
            return
        names = desired.routed
        detail = "; ".join([await self._give(name) for name in names]) or "routes name no adapter"
        self._verified = dict.fromkeys(names, self._now())
        self._touched = dict(self._verified)
        if not set(self._parts.desired().routed) <= set(names):
            # Meanwhile routes name something else.
            self._wake.set()
            return
        self._drift, self._posted_at = "", self._now()
        log.info("replica healed", extra={"url": self._url, "detail": detail})
        self._parts.post(ReplicaHealed(self._url, detail))

    async def _keep_ready(self, view: ReplicaView, desired: Desired, expected: Sequence[str]) -> None:
        if self._unready:
            self._unready = self._posted_at = None
        if not desired.routed:
            self._drift = ""
        self._drift = self._drift or self._missing(view, expected)
        if self._may_try() and not self._drift:
            await self._touch(view, desired)
            self._drift = await self._disproved(desired)
        if self._drift:
            self._tell_of_drift()
        elif self._may_try():
            await self._restore_candidates(view, desired)

    def _tell_of_drift(self) -> None:
        if not self._is_posted(self._now()):
            self._posted_at = self._now()
            log.warning("replica drifted", extra={"url": self._url, "reason": self._drift})
            self._parts.post(ReplicaDrifted(self._url, self._drift))

    def _missing(self, view: ReplicaView, expected: Sequence[str]) -> str:
        found = plan(expected, view.loaded, self._home(), lambda name: False)
        words = [f"lists {each.name} from {each.path}" for each in found if isinstance(each, Reload)]
        words += [f"does not list {each.name}" for each in found if isinstance(each, Load)]
        return f"it {' and '.join(words)}" if words else ""

    async def _disproved(self, desired: Desired) -> str:
        """Measure what has not been for long; why the replica does not serve it, or ""."""
        for name in desired.routed:
            measured = self._verified.get(name)
            if measured is not None and self._now() - measured < self._parts.settings.verify_seconds:
                continue
            record = await self._record(name)
            try:
                await self._parts.fleet.verify(self._url, record)
            except AdapterError as error:
                return str(error)
            self._verified[name] = self._touched[name] = self._now()
        return ""

    async def _restore_candidates(self, view: ReplicaView, desired: Desired) -> None:
        """Those that were loaded once: the first load of a candidate is the swap's, all replicas or none. A daemon
        that restarted has seen nothing yet, and knows from the state what was."""
        for action in plan(desired.candidates, view.loaded, self._home(), lambda name: False):
            if action.name in self._seen or action.name in desired.proven:
                await self._give(action.name)
                log.info("adapter restored", extra={"url": self._url, "adapter": action.name})

    async def _give(self, name: str) -> str:
        """Load and verify an adapter that the replica should have; tell once when that cannot be."""
        try:
            detail = await self._parts.fleet.heal(self._url, [await self._record(name)])
        except ServerUnfit:
            raise
        except AdapterError as error:
            if name not in self._refused:
                self._refused.add(name)
                self._parts.post(AdapterUnservable(name, str(error)))
            raise
        self._refused.discard(name)
        return detail

    async def _touch(self, view: ReplicaView, desired: Desired) -> None:
        for name in desired.resident:
            now = self._now()
            if name in view.loaded and now - self._touched.get(name, -1e9) >= self._parts.settings.touch_seconds:
                self._touched[name] = now
                # A server too busy to answer soon evicts nothing that is in use.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._parts.settings.observe_seconds):
                        await self._parts.fleet.touch(self._url, name)

    async def _clear(self, view: ReplicaView) -> None:
        for action in plan(self._parts.desired().resident, view.loaded, self._home(), self._departures.may_unload):
            if isinstance(action, Unload):
                await self._parts.fleet.unload(self._url, action.name, partial(self._is_wanted, action.name))

    def _is_wanted(self, name: str) -> bool:
        return name in self._parts.desired().resident

    async def _record(self, name: str) -> AdapterRecord:
        return await asyncio.to_thread(self._parts.adapters.get, name)

    def _home(self) -> str:
        return self._parts.fleet.seen_as(self._parts.adapters.root)

    def _is_posted(self, now: float) -> bool:
        """The machine was told, and has had less than a lease to act on it."""
        return self._posted_at is not None and now - self._posted_at < self._parts.settings.lease_seconds

    def _may_try(self) -> bool:
        return self._now() >= self._retry_at

    def _failed(self, reason: str) -> None:
        if reason != self._trouble:
            log.warning("replica cannot be kept as it should be", extra={"url": self._url, "reason": reason})
        self._trouble = reason
        self._retry_at = self._now() + self._backoff
        self._backoff = min(self._backoff * 2, _LONGEST_BACKOFF)

    def _forgive(self) -> None:
        self._trouble, self._backoff, self._retry_at = "", _FIRST_BACKOFF, 0.0

    def _pause(self) -> float:
        """Seconds to the next look, if nobody nudges."""
        now, settings = self._now(), self._parts.settings
        moments = [self._retry_at - now]
        if self._unready:
            moments.append(self._unready[1] + settings.lease_seconds - now)
        return min([settings.reconcile_seconds, *(each for each in moments if each > 0.0)])

    def _now(self) -> float:
        return self._parts.monotonic()
