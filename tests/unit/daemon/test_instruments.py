"""Transitions become numbers: counted once, restored after a restart, and the flip is measured to its end."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest

from tao_daemon.daemon.instruments import Instruments
from tao_daemon.daemon.keeping import ReplicaStatus
from tao_daemon.daemon.machine import advance
from tao_daemon.daemon.state import Policy, State
from tao_daemon.daemon.traffic_board import TrafficBoard
from tao_daemon.domain.events import (
    AdapterVerified,
    CandidateJudged,
    DaemonStarted,
    Event,
    PhaseCompleted,
    PhaseFailed,
    ReplicaDrifted,
    RolloutAborted,
    RolloutPaused,
    RolloutResumed,
    RoundClosed,
    RoundRequested,
    UndoRequested,
    VerificationFailed,
)
from tao_daemon.domain.report import Decision
from tao_daemon.domain.rollout import Hold, RolloutMode
from tao_daemon.domain.round import Phase
from tao_daemon.domain.traffic import GatewayReport
from tao_daemon.rollout.plan import FreezeWindow
from tao_daemon.telemetry.metrics import Metrics
from tao_daemon.telemetry.rollout_families import HOLD_REASONS
from tests.machine_plays import AUTO, arm, pairs, policy, traffic

ALWAYS = FreezeWindow(("mon", "tue", "wed", "thu", "fri", "sat", "sun"), 0, 86_400)
ROUND: tuple[Event, ...] = (
    RoundRequested("tests"),
    *(PhaseCompleted(1, 1, phase) for phase in (Phase.CLAIMING, Phase.SAMPLING, Phase.SCORING)),
    PhaseCompleted(1, 1, Phase.TRAINING, "a"),
    CandidateJudged(1, 1, Decision.PASS, "gain"),
    RoundClosed(1),
)
IN_CANARY: tuple[Event, ...] = (*ROUND, AdapterVerified("a", 1), pairs("a", 60, 0.05), traffic("a"))


class Daemon:
    """The machine with instruments, on a clock of the test's; each event comes two seconds after the last."""

    def __init__(self, policy: Policy = AUTO, state: State | None = None, now: float = 1000.0) -> None:
        self.now = now
        self.policy = policy
        self.state = state or State()
        self.metrics = Metrics("1", lambda: self.now)
        self.traffic = TrafficBoard(10.0, lambda: self.now)
        self.lacks_prompts = False
        self.replicas = [ReplicaStatus("http://u:secret@one:8000", True, "0.32.0", ("a", "b"), False, ())]
        self.instruments = Instruments(
            self.metrics,
            self.traffic,
            self.state,
            policy=policy,
            clock=lambda: self.now,
            mailbox=lambda: 3,
            replicas=lambda: self.replicas,
            lacks_prompts=lambda: self.lacks_prompts,
        )

    def see(self, *events: Event) -> Daemon:
        for event in events:
            self.now += 2.0
            transition = advance(self.state, event, self.policy, self.now)
            self.state = transition.state
            self.instruments.listen(event, transition)
        return self

    def value(self, name: str, **labels: str) -> float:
        self.metrics.exposition()
        found = self.metrics.registry.get_sample_value(name, labels)
        assert found is not None, f"{name} {labels} is not exposed"
        return found

    def holds(self) -> list[str]:
        return [why.value for why in Hold if self.value("tao_rollout_holding", reason=why.value)]


def test_a_round_is_followed_phase_by_phase() -> None:
    daemon = Daemon().see(RoundRequested("tests"))
    assert daemon.value("tao_round_phase", phase="claiming") == 1
    assert daemon.value("tao_round_phase_since_timestamp_seconds") == 1002
    daemon.see(PhaseCompleted(1, 1, Phase.CLAIMING), PhaseCompleted(1, 9, Phase.SAMPLING))
    assert daemon.value("tao_round_phase", phase="sampling") == 1
    assert daemon.value("tao_round_phase_last_success_timestamp_seconds", phase="claiming") == 1004
    assert daemon.value("tao_round_phase_last_success_timestamp_seconds", phase="sampling") == 0, "an older attempt"
    daemon.see(PhaseFailed(1, 1, Phase.SAMPLING, "no server"))
    assert daemon.value("tao_round_phase_failures_total", phase="sampling") == 1
    assert daemon.value("tao_round_phase_seconds_count", phase="sampling") == 0
    assert daemon.value("tao_round_ended_total", outcome="failed") == 1
    assert daemon.value("tao_round_phase_since_timestamp_seconds") == 0
    assert daemon.value("tao_round_seconds_sum") == 6


def test_every_phase_of_a_round_that_ends_has_its_length() -> None:
    daemon = Daemon().see(*ROUND)
    for phase in Phase:
        assert daemon.value("tao_round_phase_seconds_sum", phase=phase.value) == 2
    assert daemon.value("tao_round_last_ended_timestamp_seconds", outcome="accepted") == 1012
    assert daemon.value("tao_journal_entries_total") == len(ROUND)
    assert daemon.value("tao_journal_last_append_timestamp_seconds") == daemon.now


def test_a_due_round_waits_for_the_rollout() -> None:
    daemon = Daemon().see(*IN_CANARY, RoundRequested("more"))
    assert daemon.value("tao_round_due") == 1
    daemon.see(RolloutAborted("ann", "why not"))
    assert daemon.value("tao_round_due") == 0


def test_what_ended_before_a_restart_is_known_and_not_counted_again() -> None:
    before = Daemon().see(*IN_CANARY, RolloutAborted("ann", "why not"))
    assert before.value("tao_rollout_ended_total", phase="aborted") == 1
    after = Daemon(state=before.state, now=5000.0)
    assert after.value("tao_round_last_ended_timestamp_seconds", outcome="accepted") == 1012
    after.see(DaemonStarted("2"), DaemonStarted("3"))
    assert after.value("tao_rollout_ended_total", phase="aborted") == 0
    assert after.value("tao_round_ended_total", outcome="accepted") == 0
    assert after.value("tao_rollout_last_ended_timestamp_seconds", phase="aborted") == before.now
    assert after.value("tao_rollout_shadow_pairs") == 60


def test_a_phase_that_begins_again_after_a_restart_is_timed_from_there() -> None:
    before = Daemon().see(RoundRequested("tests"))
    after = Daemon(state=before.state, now=5000.0).see(DaemonStarted("2"))
    assert after.value("tao_round_phase_since_timestamp_seconds") == 5002
    after.see(PhaseCompleted(1, 2, Phase.CLAIMING))
    assert after.value("tao_round_phase_seconds_sum", phase="claiming") == 2


def test_a_rollout_shows_its_evidence_and_keeps_it_when_it_ends() -> None:
    daemon = Daemon()
    assert math.isnan(daemon.value("tao_rollout_evidence_ratio", test="worse"))
    daemon.see(*IN_CANARY)
    assert daemon.value("tao_rollout_phase", phase="canary") == 1
    assert daemon.value("tao_rollout_traffic_fraction_ratio") == 0.1
    assert daemon.value("tao_rollout_shadow_mean_difference_ratio") == pytest.approx(0.05)
    assert daemon.value("tao_rollout_evidence_ratio", test="not_inferior") >= 20
    assert daemon.value("tao_rollout_evidence_threshold_ratio", test="not_inferior") == 20
    daemon.see(traffic("a", (arm(200), arm(30, errors=30))))
    assert daemon.value("tao_rollout_ended_total", phase="aborted") == 1
    assert daemon.value("tao_rollout_since_timestamp_seconds") == 0
    assert daemon.value("tao_rollout_canary_conversations", arm="candidate") == 30
    assert daemon.value("tao_rollout_canary_failed_conversations", arm="candidate", failure="errors") == 30
    threshold = daemon.value("tao_rollout_evidence_threshold_ratio", test="error_rate")
    assert daemon.value("tao_rollout_evidence_ratio", test="error_rate") >= threshold
    assert daemon.holds() == []


def test_a_superseded_rollout_is_counted() -> None:
    approve = policy(mode=RolloutMode.APPROVE)
    waiting = (*ROUND, AdapterVerified("a", 1), pairs("a", 60, 0.05), traffic("a"))
    second = (
        RoundRequested("more"),
        *(PhaseCompleted(2, 1, phase) for phase in (Phase.CLAIMING, Phase.SAMPLING, Phase.SCORING)),
        PhaseCompleted(2, 1, Phase.TRAINING, "b"),
        CandidateJudged(2, 1, Decision.PASS, "gain"),
    )
    daemon = Daemon(approve).see(*waiting)
    assert daemon.holds() == ["approval"]
    since = daemon.value("tao_rollout_approval_waiting_since_timestamp_seconds")
    assert since == daemon.now - 2, "from the pairs on that it needed"
    daemon.see(*second)
    assert daemon.value("tao_rollout_ended_total", phase="superseded") == 1
    assert daemon.value("tao_rollout_approval_waiting_since_timestamp_seconds") == 0
    assert daemon.holds() == ["verifying"]


def test_every_reason_to_hold_is_a_label() -> None:
    assert set(HOLD_REASONS) == {hold.value for hold in Hold}


def test_why_a_rollout_does_not_move() -> None:
    daemon = Daemon().see(*ROUND)
    assert daemon.holds() == ["verifying"]
    assert daemon.see(AdapterVerified("a", 1)).holds() == ["evidence"]
    daemon.see(pairs("a", 60, 0.05), traffic("a"))
    assert daemon.holds() == ["no_gateway"]
    daemon.traffic.hear(GatewayReport("g", 1))
    assert daemon.holds() == ["evidence"]
    assert daemon.see(RolloutPaused("ann", "wait")).holds() == ["paused"]
    assert daemon.value("tao_rollout_paused") == 1
    assert daemon.see(RolloutResumed("ann", "go")).holds() == ["evidence"]


def test_a_freeze_holds_only_what_would_move() -> None:
    frozen = replace(AUTO, plan=replace(AUTO.plan, freeze=(ALWAYS,)))
    daemon = Daemon(frozen).see(*ROUND, AdapterVerified("a", 1))
    assert daemon.holds() == ["evidence"]
    assert daemon.see(pairs("a", 60, 0.05)).holds() == ["freeze"]


def test_undo_and_verification_are_counted_by_what_came_of_them() -> None:
    daemon = Daemon().see(UndoRequested("ann", "nothing there"))
    assert daemon.value("tao_rollout_undos_total", outcome="refused") == 1
    daemon.see(*IN_CANARY, UndoRequested("ann", "users complain"), VerificationFailed("b", 1, "no"))
    assert daemon.value("tao_rollout_undos_total", outcome="done") == 1
    assert daemon.value("tao_rollout_verifications_total", outcome="verified") == 1
    assert daemon.value("tao_rollout_verifications_total", outcome="failed") == 1


def test_replicas_and_gateways_are_looked_at_before_a_scrape() -> None:
    daemon = Daemon().see(ReplicaDrifted("http://one:8000", "lost it"))
    assert daemon.value("tao_serving_replica_reachable", replica="one:8000") == 1, "no credentials in a label"
    assert daemon.value("tao_serving_replica_ready", replica="one:8000") == 0
    assert daemon.value("tao_serving_replica_adapters", replica="one:8000") == 2
    assert daemon.value("tao_serving_drifts_total") == 1
    assert daemon.value("tao_rollout_unready_replicas") == 1
    assert daemon.value("tao_daemon_mailbox_events") == 3
    assert daemon.value("tao_round_lacks_prompts") == 0
    daemon.lacks_prompts = True
    assert daemon.value("tao_round_lacks_prompts") == 1
    daemon.traffic.hear(GatewayReport("reports", 0))
    daemon.traffic.hear_poll("polls", 1, 20.0)
    assert daemon.value("tao_rollout_live_gateways") == 2
    assert daemon.value("tao_rollout_reporting_gateways") == 1
    assert daemon.value("tao_rollout_behind_gateways") == 1


async def test_a_flip_is_measured_until_the_last_gateway_has_it() -> None:
    daemon = Daemon().see(*IN_CANARY)
    present = daemon.state.routes.generation
    for name in ("one", "two"):
        daemon.traffic.hear(GatewayReport(name, present))
    running = asyncio.create_task(daemon.instruments.run())
    daemon.see(UndoRequested("ann", "users complain"))
    daemon.traffic.hear(GatewayReport("one", present + 1))
    await asyncio.sleep(0.1)
    assert daemon.value("tao_rollout_flip_seconds_count", cause="undo") == 0
    daemon.traffic.hear(GatewayReport("two", present + 1))
    async with asyncio.timeout(20):
        while not daemon.value("tao_rollout_flip_seconds_count", cause="undo"):
            await asyncio.sleep(0.01)
    assert daemon.value("tao_rollout_flip_seconds_sum", cause="undo") >= 0.1
    running.cancel()
