"""The machine: its ordinary paths by example, its invariants by property."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tao_daemon.daemon.codec import decode_event, decode_state, encode_event, encode_state
from tao_daemon.daemon.machine import Policy, State, Transition, advance
from tao_daemon.domain.commands import (
    CloseRound,
    Command,
    PublishRoutes,
    RetireAdapter,
    RunPhase,
    VerifyAdapter,
)
from tao_daemon.domain.events import (
    AdapterVerified,
    CandidateJudged,
    DaemonStarted,
    Event,
    PhaseCompleted,
    PhaseFailed,
    RolloutAborted,
    RolloutApproved,
    RoundCancelRequested,
    RoundClosed,
    RoundRequested,
    SwapFailed,
    UndoRequested,
)
from tao_daemon.domain.report import Decision
from tao_daemon.domain.rollout import RolloutMode, RolloutPhase, Routes
from tao_daemon.domain.round import Outcome, Phase

AUTO = Policy(RolloutMode.AUTO, max_attempts=3)
APPROVE = replace(AUTO, mode=RolloutMode.APPROVE)
OBSERVE = replace(AUTO, mode=RolloutMode.OBSERVE)


def play(policy: Policy, *events: Event, state: State | None = None) -> tuple[State, list[Command]]:
    state, commands = state or State(), []
    for event in events:
        transition = advance(state, event, policy, now=1.0)
        state = transition.state
        commands += transition.commands
    return state, commands


def a_round(number: int, adapter: str, decision: Decision = Decision.PASS) -> list[Event]:
    """Every event of an undisturbed round up to its verdict."""
    work: list[Event] = [RoundRequested("test")]
    for phase in list(Phase)[:4]:
        candidate = adapter if phase is Phase.TRAINING else None
        work.append(PhaseCompleted(number, 1, phase, candidate))
    return [*work, CandidateJudged(number, 1, decision, "judged"), RoundClosed(number)]


def test_an_accepted_candidate_serves_after_verification_in_auto_mode() -> None:
    state, commands = play(AUTO, *a_round(1, "a"))
    assert state.rollout is not None
    assert state.rollout.phase is RolloutPhase.SWAPPING
    assert state.routes.adapter is None, "nothing is flipped before the servers proved it"
    state, commands = play(AUTO, AdapterVerified("a", 1), state=state)
    assert state.routes == Routes(1, adapter="a", previous=None)
    assert commands == [PublishRoutes(state.routes)]


@pytest.mark.parametrize("decision", [Decision.FAIL, Decision.INCONCLUSIVE])
def test_a_candidate_that_did_not_pass_never_serves(decision: Decision) -> None:
    state, commands = play(AUTO, *a_round(1, "a", decision))
    assert state.rollout is None
    assert not [c for c in commands if isinstance(c, VerifyAdapter)]
    assert state.last_round is not None
    assert state.last_round.outcome in (Outcome.REJECTED, Outcome.INCONCLUSIVE)


def test_approve_mode_waits_for_a_person() -> None:
    state, commands = play(APPROVE, *a_round(1, "a"), RoundRequested("more traffic"))
    assert state.rollout is not None
    assert state.rollout.phase is RolloutPhase.STAGED
    assert state.round is None, "no round may build on an incumbent that is about to change"
    state, commands = play(APPROVE, RolloutApproved("ann", "looks good"), state=state)
    assert commands == [VerifyAdapter("a", 1)]
    state, commands = play(APPROVE, AdapterVerified("a", 1), state=state)
    assert state.round is not None, "the round that was due starts when the rollout has settled"
    assert state.round.incumbent == "a"


def test_observe_mode_tells_and_goes_on() -> None:
    state, commands = play(OBSERVE, *a_round(1, "a"))
    assert state.rollout is not None
    assert state.rollout.phase is RolloutPhase.ABORTED
    assert "observe" in state.rollout.reason
    assert RetireAdapter("a") in commands
    assert not [c for c in commands if isinstance(c, VerifyAdapter)]


def test_undo_goes_back_one_version_then_to_the_base_model() -> None:
    state, _ = play(AUTO, *a_round(1, "a"), AdapterVerified("a", 1), *a_round(2, "b"), AdapterVerified("b", 1))
    assert state.routes == Routes(2, "b", "a")
    state, commands = play(AUTO, UndoRequested("ann", "worse"), state=state)
    assert state.routes == Routes(3, "a", None)
    assert commands == [PublishRoutes(Routes(3, "a", None)), RetireAdapter("b")]
    state, _ = play(AUTO, UndoRequested("ann", "worse"), state=state)
    assert state.routes == Routes(4, None, None)
    state, commands = play(AUTO, UndoRequested("ann", "worse"), state=state)
    assert (state.routes.generation, commands) == (4, [])


def test_undo_cancels_the_round_that_was_built_on_the_undone_adapter() -> None:
    state, _ = play(AUTO, *a_round(1, "a"), AdapterVerified("a", 1), RoundRequested("go"))
    assert state.round is not None
    state, commands = play(AUTO, UndoRequested("ann", "worse"), state=state)
    assert state.round is None
    assert state.last_round is not None
    assert state.last_round.outcome is Outcome.CANCELLED
    assert isinstance(commands[0], PublishRoutes), "the flip comes before everything else"


def test_a_third_version_retires_the_first() -> None:
    events = [e for i, name in enumerate("abc", 1) for e in (*a_round(i, name), AdapterVerified(name, 1))]
    state, commands = play(AUTO, *events)
    assert state.routes == Routes(3, "c", "b")
    assert [c for c in commands if isinstance(c, RetireAdapter)] == [RetireAdapter("a")]


def test_a_failed_swap_flips_nothing() -> None:
    state, commands = play(AUTO, *a_round(1, "a"), SwapFailed("a", 1, "serves the base"))
    assert state.routes == Routes(0, None, None)
    assert RetireAdapter("a") in commands
    assert state.rollout is not None
    assert state.rollout.phase is RolloutPhase.ABORTED


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


def test_a_restart_serves_again_what_the_routes_name() -> None:
    state, _ = play(AUTO, *a_round(1, "a"), AdapterVerified("a", 1), *a_round(2, "b"), AdapterVerified("b", 1))
    _, commands = play(AUTO, DaemonStarted("1"), state=state)
    assert commands == [PublishRoutes(state.routes), VerifyAdapter("b", 0), VerifyAdapter("a", 0)]


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
    st.just(RolloutAborted("ann", "why")),
    st.builds(AdapterVerified, NAMES, SMALL),
    st.builds(SwapFailed, NAMES, SMALL, st.just("why")),
    st.just(UndoRequested("ann", "why")),
)


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens, in whatever order, by whatever attempt."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.gated: set[str] = set()
        self.mode = RolloutMode.AUTO

    def take(self, event: Event) -> Transition:
        before = self.state
        policy = Policy(self.mode, max_attempts=3)
        transition = advance(before, event, policy, now=1.0)
        self.state = transition.state
        rollout = transition.state.rollout
        if isinstance(event, CandidateJudged) and event.decision is Decision.PASS and rollout:
            self.gated.add(rollout.adapter)
        assert self.state.routes.generation >= before.routes.generation
        changed = self.state.routes != before.routes
        assert changed == (self.state.routes.generation == before.routes.generation + 1)
        if changed:
            assert PublishRoutes(self.state.routes) in transition.commands
            assert isinstance(event, AdapterVerified | UndoRequested)
        for command in transition.commands:
            if isinstance(command, RetireAdapter):
                assert command.adapter not in (self.state.routes.adapter, self.state.routes.previous)
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

    @precondition(lambda self: self.state.rollout is not None and self.state.rollout.phase.is_open)
    @rule()
    def swap_ends(self) -> None:
        rollout = self.state.rollout
        assert rollout is not None
        self.take(AdapterVerified(rollout.adapter, rollout.attempt))

    @invariant()
    def only_gated_adapters_serve(self) -> None:
        assert {self.state.routes.adapter, self.state.routes.previous} - {None} <= self.gated

    @invariant()
    def one_thing_at_a_time(self) -> None:
        assert not (self.state.round and self.state.closing)
        rollout = self.state.rollout
        assert not (self.state.round and rollout and rollout.phase.is_open)

    @invariant()
    def survives_the_journal(self) -> None:
        assert decode_state(encode_state(self.state)) == self.state


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("event", [RoundRequested("go"), PhaseCompleted(1, 2, Phase.TRAINING, "a"), DaemonStarted("1")])
def test_events_survive_the_journal(event: Event) -> None:
    assert decode_event(encode_event(event)) == event
