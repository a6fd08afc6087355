"""The machine: its ordinary paths by example, its invariants by property."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tao_daemon.daemon.codec import decode_event, decode_state, encode_event, encode_state
from tao_daemon.daemon.machine import advance
from tao_daemon.daemon.state import State, Transition
from tao_daemon.domain.commands import (
    CloseRound,
    PublishRoutes,
    RunPhase,
    VerifyAdapter,
)
from tao_daemon.domain.events import (
    AdapterUnservable,
    AdapterVerified,
    CandidateJudged,
    DaemonStarted,
    Event,
    PhaseCompleted,
    PhaseFailed,
    ReplicaDrifted,
    ReplicaHealed,
    RolloutAborted,
    RolloutApproved,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    RoundCancelRequested,
    RoundClosed,
    RoundRequested,
    TrafficMeasured,
    UndoRequested,
    VerificationFailed,
)
from tao_daemon.domain.report import Decision
from tao_daemon.domain.rollout import RolloutMode, RolloutPhase
from tao_daemon.domain.round import Outcome, Phase
from tests.machine_plays import AUTO, a_round, arm, pairs, play, policy, traffic


@pytest.mark.parametrize("decision", [Decision.FAIL, Decision.INCONCLUSIVE])
def test_a_candidate_that_did_not_pass_never_serves(decision: Decision) -> None:
    state, commands = play(AUTO, *a_round(1, "a", decision))
    assert state.rollout is None
    assert not [c for c in commands if isinstance(c, VerifyAdapter)]
    assert state.last_round is not None
    assert state.last_round.outcome in (Outcome.REJECTED, Outcome.INCONCLUSIVE)


def test_results_of_an_older_attempt_change_nothing() -> None:
    state, _ = play(AUTO, RoundRequested("go"), DaemonStarted("1"))
    assert state.round is not None
    assert state.round.attempt == 2
    late: list[Event] = [
        PhaseCompleted(1, 1, Phase.CLAIMING),
        PhaseFailed(1, 1, Phase.CLAIMING, "late"),
        CandidateJudged(1, 1, Decision.PASS, "late"),
        PhaseCompleted(1, 2, Phase.TRAINING, "forged"),
    ]
    assert play(AUTO, *late, state=state) == (state, [])


def test_a_restart_resumes_the_phase_and_gives_up_after_too_many() -> None:
    state, _ = play(AUTO, RoundRequested("go"), PhaseCompleted(1, 1, Phase.CLAIMING))
    for attempt in (2, 3):
        state, commands = play(AUTO, DaemonStarted("1"), state=state)
        assert state.round is not None
        assert RunPhase(state.round) in commands
        assert (state.round.phase, state.round.attempt) == (Phase.SAMPLING, attempt)
    state, commands = play(AUTO, DaemonStarted("1"), state=state)
    assert state.round is None
    assert state.last_round is not None
    assert state.last_round.outcome is Outcome.FAILED
    assert "interrupted" in state.last_round.reason


def test_a_restart_repeats_the_closing_of_a_round() -> None:
    state, _ = play(AUTO, RoundRequested("go"), RoundCancelRequested("ann", "no"))
    assert state.closing is not None
    _, commands = play(AUTO, DaemonStarted("1"), RoundRequested("again"), state=state)
    assert CloseRound(state.closing) in commands
    assert not [c for c in commands if isinstance(c, RunPhase)], "no new round before the old one is put away"


PHASES = st.sampled_from(list(Phase))
SMALL = st.integers(min_value=0, max_value=4)
NAMES = st.sampled_from(["a", "b", "c"])
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.just(DaemonStarted("1")),
    st.just(RoundRequested("go")),
    st.builds(PhaseCompleted, SMALL, SMALL, PHASES, st.none() | NAMES),
    st.builds(CandidateJudged, SMALL, SMALL, st.sampled_from(list(Decision)), st.just("why")),
    st.builds(PhaseFailed, SMALL, SMALL, PHASES, st.just("why")),
    st.builds(RoundClosed, SMALL),
    st.just(RoundCancelRequested("ann", "why")),
    st.just(RolloutApproved("ann", "why")),
    st.builds(RolloutPromoted, st.just("ann"), st.just("why"), st.booleans(), st.sampled_from([None, 2.0])),
    st.just(RolloutPaused("ann", "why")),
    st.just(RolloutResumed("ann", "why")),
    st.builds(pairs, NAMES, st.integers(0, 60), st.sampled_from([0.0, 0.2, -0.9])),
    st.builds(TrafficMeasured, NAMES, st.none()),
    st.builds(AdapterUnservable, NAMES, st.just("why")),
    st.builds(ReplicaDrifted, st.sampled_from(["x", "y"]), st.just("why")),
    st.builds(ReplicaHealed, st.sampled_from(["x", "y"]), st.just("why")),
    st.just(RolloutAborted("ann", "why")),
    st.builds(AdapterVerified, NAMES, SMALL),
    st.builds(VerificationFailed, NAMES, SMALL, st.just("why")),
    st.builds(UndoRequested, st.just("ann"), st.just("why"), st.none() | st.just("base") | NAMES),
)


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens, in whatever order, by whatever attempt."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.gated: set[str] = set()
        self.verified: set[str] = set()
        self.mode = RolloutMode.AUTO
        self.now = 0.0

    def take(self, event: Event) -> Transition:
        before = self.state
        self.now += 60.0
        transition = advance(before, event, policy(mode=self.mode), now=self.now)
        self.state = transition.state
        rollout = transition.state.rollout
        if isinstance(event, CandidateJudged) and event.decision is Decision.PASS and rollout:
            self.gated.add(rollout.adapter)
        assert self.state.routes.generation >= before.routes.generation
        if isinstance(event, AdapterVerified):
            self.verified.add(event.adapter)
        if self.state.routes != before.routes:
            assert self.state.routes.generation > before.routes.generation
            assert PublishRoutes(self.state.routes) in transition.commands
        if transition.refused:
            assert (self.state, transition.commands) == (before, ())
        return transition

    @rule(mode=st.sampled_from(list(RolloutMode)))
    def set_mode(self, mode: RolloutMode) -> None:
        self.mode = mode

    @rule(event=EVENTS)
    def anything(self, event: Event) -> None:
        self.take(event)

    @precondition(lambda self: self.state.round is not None)
    @rule(decision=st.sampled_from(list(Decision)))
    def round_goes_on(self, decision: Decision) -> None:
        running = self.state.round
        assert running is not None
        if running.phase is Phase.EVALUATING:
            self.take(CandidateJudged(running.id, running.attempt, decision, "judged"))
        else:
            candidate = f"r{running.id}" if running.phase is Phase.TRAINING else None
            self.take(PhaseCompleted(running.id, running.attempt, running.phase, candidate))

    @precondition(lambda self: self.state.closing is not None)
    @rule()
    def closing_ends(self) -> None:
        assert self.state.closing is not None
        self.take(RoundClosed(self.state.closing.round.id))

    @precondition(lambda self: self.state.open_rollout is not None)
    @rule(difference=st.sampled_from([0.0, 0.1, -0.8]), errors=st.sampled_from([0, 0, 15]))
    def rollout_goes_on(self, difference: float, errors: int) -> None:
        rollout = self.state.open_rollout
        assert rollout is not None
        if rollout.phase is RolloutPhase.STAGED:
            self.take(AdapterVerified(rollout.adapter, rollout.attempt))
            return
        self.take(pairs(rollout.adapter, 60, difference, rollout.phase))
        steps = [(arm(200), arm(60, errors=errors)) for _ in rollout.evidence.steps]
        self.take(traffic(rollout.adapter, *steps))

    @invariant()
    def only_gated_adapters_serve(self) -> None:
        assert set(self.state.routes.named) <= self.gated & self.verified

    @invariant()
    def one_thing_at_a_time(self) -> None:
        assert not (self.state.round and self.state.closing)
        routes, rollout = self.state.routes, self.state.open_rollout
        assert (routes.candidate is not None) == (rollout is not None and rollout.phase is RolloutPhase.CANARY)
        assert (routes.salt != "") == (
            rollout is not None and rollout.phase in (RolloutPhase.CANARY, RolloutPhase.BAKING)
        )
        assert routes.candidate is None or routes.candidate not in (routes.adapter, routes.previous)

    @invariant()
    def survives_the_journal(self) -> None:
        assert decode_state(encode_state(self.state)) == self.state


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("event", [RoundRequested("go"), PhaseCompleted(1, 2, Phase.TRAINING, "a"), DaemonStarted("1")])
def test_events_survive_the_journal(event: Event) -> None:
    assert decode_event(encode_event(event)) == event


def test_a_promotion_of_an_older_journal_is_read() -> None:
    old = {"type": "RolloutPromoted", "actor": "ann", "reason": "sure", "full": False}
    assert decode_event(old) == RolloutPromoted("ann", "sure")
