"""Metrics of rollouts, kept. What they are is declared in `rollout_families`."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry

from tao_daemon.clients.prometheus import make_counter, make_gauge, make_histogram, make_info
from tao_daemon.domain.metrics import UNKNOWN
from tao_daemon.domain.rollout import RolloutPhase, RolloutState, Routes
from tao_daemon.telemetry import rollout_families as families
from tao_daemon.telemetry.rollout_families import ARMS, FAILURES, HOLD_REASONS, OPEN_PHASES, TESTS


class RoutesMetrics:
    """What serves, and who knows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._generation = make_gauge(families.GENERATION, registry)
        self._incumbent = make_info(families.INCUMBENT, registry)
        self._since = make_gauge(families.SINCE, registry)
        self._on_base = make_gauge(families.ON_BASE, registry)
        self._returning = make_gauge(families.RETURNING, registry)
        self._fraction = make_gauge(families.FRACTION, registry)
        self._flips = make_histogram(families.FLIP_SECONDS, registry)
        self._undos = make_counter(families.UNDOS, registry)
        self._live = make_gauge(families.LIVE, registry)
        self._reporting = make_gauge(families.REPORTING, registry)
        self._behind = make_gauge(families.BEHIND, registry)

    def published(self, routes: Routes, since: float) -> None:
        """`since`: Unix second from which the incumbent serves everything."""
        self._generation.set(routes.generation)
        self._on_base.set(routes.adapter is None)
        self._fraction.set(routes.fraction)
        self._since.set(since)
        names = {"adapter": routes.adapter, "previous": routes.previous, "candidate": routes.candidate}
        self._incumbent.info({kind: name or "" for kind, name in names.items()})

    def returning(self, returning: bool) -> None:
        self._returning.set(returning)

    def undone(self, outcome: str) -> None:
        """`done`, `loading` or `refused`."""
        self._undos.labels(outcome).inc()

    def flipped(self, cause: str, seconds: float) -> None:
        """Every live gateway uses the routes that were published `seconds` ago, or was waited for in vain."""
        self._flips.labels(cause).observe(seconds)

    def gateways(self, *, live: int, reporting: int, behind: int) -> None:
        self._live.set(live)
        self._reporting.set(reporting)
        self._behind.set(behind)


class RolloutMetrics:
    """The open rollout, the latest one's evidence, and what became of all."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._phase = make_gauge(families.PHASE, registry)
        self._since = make_gauge(families.PHASE_SINCE, registry)
        self._started = make_gauge(families.STARTED, registry)
        self._paused = make_gauge(families.PAUSED, registry)
        self._holding = make_gauge(families.HOLDING, registry)
        self._approval = make_gauge(families.APPROVAL_SINCE, registry)
        self._difference = make_gauge(families.DIFFERENCE, registry)
        self._evidence = make_gauge(families.EVIDENCE, registry)
        self._threshold = make_gauge(families.THRESHOLD, registry)
        self._requests = make_gauge(families.CANARY_REQUESTS, registry)
        self._conversations = make_gauge(families.CANARY_CONVERSATIONS, registry)
        self._failed = make_gauge(families.CANARY_FAILED, registry)
        self._ended = make_counter(families.ENDED, registry)
        self._last_ended = make_gauge(families.LAST_ENDED, registry)
        self._verifications = make_counter(families.VERIFICATIONS, registry)
        self._pairs = {
            "shadow_pairs": make_gauge(families.PAIRS, registry),
            "shadow_pairs_wanted": make_gauge(families.WANTED, registry),
            "shadow_skipped": make_gauge(families.SKIPPED, registry),
            "shadow_candidate_failures": make_gauge(families.FAILED, registry),
        }

    def opened(self, rollout: RolloutState | None) -> None:
        """The open rollout, or None."""
        for phase in OPEN_PHASES:
            self._phase.labels(phase).set(rollout is not None and rollout.phase is phase)
        self._paused.set(rollout is not None and rollout.paused_by is not None)
        self._since.set(rollout.since if rollout else 0.0)
        self._started.set(rollout.started_at if rollout else 0.0)

    def holding(self, why: str | None) -> None:
        """One of HOLD_REASONS; None: no rollout is open."""
        assert why is None or why in HOLD_REASONS
        for reason in HOLD_REASONS:
            self._holding.labels(reason).set(reason == why)

    def waits_for_approval(self, since: float) -> None:
        """Unix second from which it does; 0.0 when it does not."""
        self._approval.set(since)

    def evidence(self, numbers: Mapping[str, float]) -> None:
        """Of the latest rollout, as `rollout.assessment.numbers` gives it."""
        for name, gauge in self._pairs.items():
            gauge.set(numbers[name])
        self._difference.set(numbers["shadow_mean_difference"] if numbers["shadow_pairs"] else UNKNOWN)
        for test in TESTS:
            self._evidence.labels(test).set(numbers[f"evidence_{test}"])
            self._threshold.labels(test).set(numbers[f"threshold_{test}"])
        for arm in ARMS:
            self._requests.labels(arm).set(numbers[f"{arm}_requests"])
            self._conversations.labels(arm).set(numbers[f"{arm}_conversations"])
            for failure in FAILURES:
                self._failed.labels(arm, failure).set(numbers[f"{arm}_{failure}"])

    def ended(self, phase: RolloutPhase, at: float) -> None:
        self._ended.labels(phase).inc()
        self.remember(phase, at)

    def remember(self, phase: RolloutPhase, at: float) -> None:
        """A rollout that ended before this process began: known, not counted."""
        assert not phase.is_open
        self._last_ended.labels(phase).set(at)

    def verified(self, outcome: str) -> None:
        """`verified` or `failed`."""
        self._verifications.labels(outcome).inc()
