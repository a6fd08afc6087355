"""Rollouts: shadow, canary, baking, the verbs, undo, replicas."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tao_daemon.daemon.keeping import desired_of
from tao_daemon.daemon.machine import advance
from tao_daemon.daemon.state import State
from tao_daemon.domain.commands import PublishRoutes, VerifyAdapter
from tao_daemon.domain.events import (
    AdapterUnservable,
    AdapterVerified,
    DaemonStarted,
    Event,
    ReplicaDrifted,
    ReplicaHealed,
    RolloutAborted,
    RolloutApproved,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    RoundRequested,
    TrafficMeasured,
    UndoRequested,
    VerificationFailed,
)
from tao_daemon.domain.rollout import NewerCandidate, RolloutMode, RolloutPhase
from tao_daemon.domain.round import Outcome
from tao_daemon.rollout.plan import FreezeWindow, clock_seconds, is_frozen
from tests.machine_plays import AUTO, a_round, arm, pairs, play, policy, settling, traffic

APPROVE = policy(mode=RolloutMode.APPROVE)
OBSERVE = policy(mode=RolloutMode.OBSERVE)
GOOD = 60
"""Pairs without a difference after which the shadow has passed."""


def phase_of(state: State) -> RolloutPhase:
    assert state.rollout is not None
    return state.rollout.phase


def shadowed(adapter: str = "a", number: int = 1) -> list[Event]:
    """Up to a shadow that has seen enough."""
    return [*a_round(number, adapter), AdapterVerified(adapter, 1), pairs(adapter, GOOD, 0.0)]


def in_canary(state: State | None = None) -> State:
    state, _ = play(AUTO, *shadowed(), traffic("a"), state=state, now=100.0)
    assert phase_of(state) is RolloutPhase.CANARY
    return state


def in_baking() -> State:
    state = in_canary()
    first, second = (arm(200), arm(20)), (arm(40), arm(40))
    state, _ = play(AUTO, traffic("a", first), state=state, now=120.0)
    state, _ = play(AUTO, traffic("a", first, second), state=state, now=140.0)
    assert phase_of(state) is RolloutPhase.BAKING
    return state


def test_a_good_candidate_goes_all_the_way_and_the_routes_say_so() -> None:
    state, commands = play(AUTO, *a_round(1, "a"), now=100.0)
    assert VerifyAdapter("a", 1) in commands
    assert phase_of(state) is RolloutPhase.STAGED
    state, commands = play(AUTO, AdapterVerified("a", 1), pairs("a", GOOD, 0.1), state=state, now=100.0)
    assert (phase_of(state), commands) == (RolloutPhase.SHADOW, []), "no client sees the shadow"
    state, commands = play(AUTO, traffic("a", slow=3.0), state=state, now=100.0)
    assert (state.routes.candidate, state.routes.fraction, state.routes.slow_seconds) == ("a", 0.1, 3.0)
    assert commands == [PublishRoutes(state.routes)]
    salt = state.routes.salt
    state, _ = play(AUTO, traffic("a", (arm(200), arm(20)), slow=9.0), state=state, now=120.0)
    assert (state.routes.fraction, state.routes.slow_seconds, state.routes.salt) == (0.5, 3.0, salt)
    state, _ = play(AUTO, traffic("a", (arm(200), arm(20)), (arm(30), arm(30))), state=state, now=140.0)
    assert phase_of(state) is RolloutPhase.BAKING
    assert (state.routes.adapter, state.routes.candidate, state.routes.salt) == ("a", None, f"{salt}/baking")
    state, _ = play(AUTO, traffic("a", (arm(0), arm(50))), state=state, now=239.0)
    assert phase_of(state) is RolloutPhase.BAKING, "time is not up"
    state, _ = play(AUTO, traffic("a", (arm(0), arm(50))), state=state, now=240.0)
    assert phase_of(state) is RolloutPhase.SETTLED
    assert (state.routes.adapter, state.routes.salt, state.served) == ("a", "", ("a",))


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (TrafficMeasured("a", None), "no gateway reports"),
        (traffic("a", (arm(200), arm(19))), "19 of 20 conversations"),
        (traffic("a", (arm(0), arm(30))), "no conversation of the incumbent"),
    ],
)
def test_missing_evidence_holds_and_says_so(missing: Event, words: str) -> None:
    state, commands = play(AUTO, missing, state=in_canary(), now=1e6)
    assert phase_of(state) is RolloutPhase.CANARY
    assert commands == []
    assert state.rollout is not None
    assert words in state.rollout.hold


def test_a_step_takes_its_time_however_much_traffic_there_is() -> None:
    state, commands = play(AUTO, traffic("a", (arm(10_000), arm(1_000))), state=in_canary(), now=109.0)
    assert (state.rollout and state.rollout.step, commands) == (0, [])


def test_a_worse_candidate_is_aborted_in_the_shadow_before_any_client_sees_it() -> None:
    state, commands = play(AUTO, *a_round(1, "a"), AdapterVerified("a", 1), pairs("a", 40, -0.6))
    assert phase_of(state) is RolloutPhase.ABORTED
    assert not [c for c in commands if isinstance(c, PublishRoutes)]


@pytest.mark.parametrize("failures", [{"errors": 15}, {"slow": 18}, {"truncated": 18}])
def test_a_regression_in_the_canary_aborts_and_the_incumbent_answers_everything(failures: dict[str, int]) -> None:
    before = in_canary()
    state, commands = play(AUTO, traffic("a", (arm(200), arm(20, **failures))), state=before, now=101.0)
    assert phase_of(state) is RolloutPhase.ABORTED
    assert (state.routes.adapter, state.routes.candidate, state.routes.fraction) == (None, None, 0.0)
    assert commands == [PublishRoutes(state.routes)]


def test_a_regression_is_acted_on_while_paused_and_while_frozen() -> None:
    frozen = policy(freeze=(FreezeWindow(("mon", "tue", "wed", "thu", "fri", "sat", "sun"), 0, 86_400),))
    state, _ = play(frozen, RolloutPaused("ann", "lunch"), state=in_canary(), now=101.0)
    state, _ = play(frozen, traffic("a", (arm(200), arm(20, errors=15))), state=state, now=102.0)
    assert phase_of(state) is RolloutPhase.ABORTED


def test_baking_undoes_itself_and_keeps_what_it_replaced() -> None:
    state, _ = play(AUTO, *settling(1, "z"))
    state, _ = play(AUTO, *a_round(2, "a"), AdapterVerified("a", 1), pairs("a", GOOD, 0.0), state=state)
    state, _ = play(
        AUTO, RolloutPromoted("ann", "x"), RolloutPromoted("ann", "x"), RolloutPromoted("ann", "x"), state=state
    )
    assert phase_of(state) is RolloutPhase.BAKING
    assert (state.routes.adapter, state.routes.previous) == ("a", "z")
    state, _ = play(AUTO, pairs("a", 40, -0.6, RolloutPhase.BAKING), state=state)
    assert phase_of(state) is RolloutPhase.ROLLED_BACK
    assert (state.routes.adapter, state.routes.previous) == ("z", None)


def test_pairs_of_the_shadow_do_not_count_in_baking() -> None:
    state = in_baking()
    after, _ = play(AUTO, pairs("a", 40, -0.9, RolloutPhase.CANARY), state=state)
    assert after == state


def test_approve_mode_shows_the_evidence_and_waits() -> None:
    state, _ = play(APPROVE, *shadowed(), traffic("a"), now=100.0)
    assert phase_of(state) is RolloutPhase.SHADOW
    assert state.rollout is not None
    assert "waits for `tao-daemon rollout approve`" in state.rollout.hold
    state, _ = play(APPROVE, RolloutApproved("ann", "looks good"), traffic("a"), state=state, now=100.0)
    assert phase_of(state) is RolloutPhase.CANARY
    assert state.rollout is not None
    assert state.rollout.approved_by == "ann: looks good"


def test_observe_mode_never_touches_live_traffic() -> None:
    state, commands = play(OBSERVE, *shadowed(), traffic("a"))
    assert phase_of(state) is RolloutPhase.ABORTED
    assert state.rollout is not None
    assert "observe" in state.rollout.reason
    assert not [c for c in commands if isinstance(c, PublishRoutes)]
    for verb in (RolloutApproved("ann", "x"), RolloutPromoted("ann", "x", full=True)):
        staged, _ = play(OBSERVE, *a_round(1, "a"))
        assert advance(staged, verb, OBSERVE, 1.0).refused


def test_a_rollout_that_waits_for_a_person_does_not_stop_learning_and_gives_way_to_a_newer_one() -> None:
    state, _ = play(APPROVE, *shadowed(), RoundRequested("more traffic"), now=100.0)
    assert state.round is not None
    state, _ = play(APPROVE, *a_round(2, "b")[1:], state=state, now=100.0)
    assert state.rollout is not None
    assert (state.rollout.adapter, state.rollout.phase) == ("b", RolloutPhase.STAGED)


def test_with_the_policy_wait_no_round_starts_beside_a_rollout() -> None:
    patient = policy(mode=RolloutMode.APPROVE, newer_candidate=NewerCandidate.WAIT)
    state, _ = play(patient, *shadowed(), RoundRequested("more traffic"), now=100.0)
    assert state.round is None
    assert state.due == "more traffic"


def test_a_flip_ends_the_round_that_was_built_on_the_old_incumbent() -> None:
    state, _ = play(APPROVE, *shadowed(), RoundRequested("more"), RolloutPromoted("ann", "x", full=True), now=100.0)
    assert state.last_round is not None
    assert state.last_round.outcome is Outcome.CANCELLED
    assert state.routes.adapter == "a"


def test_pause_holds_and_resume_goes_on() -> None:
    state, _ = play(AUTO, RolloutPaused("ann", "lunch"), state=in_canary(), now=101.0)
    enough = traffic("a", (arm(200), arm(20)))
    state, commands = play(AUTO, enough, state=state, now=1e6)
    assert commands == []
    assert state.rollout is not None
    assert "paused by ann: lunch" in state.rollout.hold
    state, _ = play(AUTO, RolloutResumed("ann", "back"), enough, state=state, now=1e6)
    assert state.rollout is not None
    assert state.rollout.step == 1


def test_promote_goes_one_step_and_in_full_to_the_end() -> None:
    state, _ = play(AUTO, *a_round(1, "a"), AdapterVerified("a", 1), RolloutPromoted("ann", "sure"))
    assert phase_of(state) is RolloutPhase.CANARY
    state, _ = play(AUTO, RolloutPromoted("ann", "sure", full=True), state=state)
    assert phase_of(state) is RolloutPhase.SETTLED
    assert state.routes.adapter == "a"


def test_a_promoted_canary_knows_from_its_first_step_what_is_slow() -> None:
    """Measured before the candidate had any traffic; what is measured later does not move it."""
    promote = RolloutPromoted("ann", "sure", slow_seconds=1.5)
    state, _ = play(AUTO, *a_round(1, "a"), AdapterVerified("a", 1), promote)
    assert (phase_of(state), state.routes.slow_seconds) == (RolloutPhase.CANARY, 1.5)
    state, _ = play(AUTO, replace(promote, slow_seconds=30.0), state=state)
    assert (state.routes.fraction, state.routes.slow_seconds) == (0.5, 1.5)


def test_promoted_in_full_while_staged_still_serves_only_after_verification() -> None:
    state, _ = play(AUTO, *a_round(1, "a"), RolloutPromoted("ann", "now", full=True))
    assert state.routes.adapter is None
    failed, _ = play(AUTO, VerificationFailed("a", 1, "serves the base"), state=state)
    assert (phase_of(failed), failed.routes.adapter) == (RolloutPhase.ABORTED, None)
    state, _ = play(AUTO, AdapterVerified("a", 1), state=state)
    assert (phase_of(state), state.routes.adapter) == (RolloutPhase.SETTLED, "a")


@pytest.mark.parametrize("resumed_first", [True, False])
def test_promoted_in_full_while_staged_and_paused_serves_once_it_is_verified_and_resumed(resumed_first: bool) -> None:
    pause, resume = RolloutPaused("ann", "wait"), RolloutResumed("ann", "go")
    state, _ = play(AUTO, *a_round(1, "a"), RolloutPromoted("ann", "now", full=True), pause)
    first, second = (resume, AdapterVerified("a", 1)) if resumed_first else (AdapterVerified("a", 1), resume)
    state, commands = play(AUTO, first, traffic("a"), state=state)
    assert (state.routes.adapter, commands) == (None, [])
    state, _ = play(AUTO, second, state=state)
    assert (phase_of(state), state.routes.adapter) == (RolloutPhase.SETTLED, "a")


def test_promoted_in_full_and_paused_is_held_through_a_restart_and_may_be_aborted_or_promoted_anew() -> None:
    promote = RolloutPromoted("ann", "now", full=True)
    verified = (AdapterVerified("a", 1), DaemonStarted("1"), traffic("a"))
    state, _ = play(AUTO, *a_round(1, "a"), promote, RolloutPaused("bob", "wait"), *verified)
    assert state.rollout is not None
    assert (state.routes.adapter, state.rollout.hold) == (None, "paused by bob: wait")
    aborted, _ = play(AUTO, RolloutAborted("bob", "no"), state=state)
    assert (phase_of(aborted), aborted.routes.adapter) == (RolloutPhase.ABORTED, None)
    again, _ = play(AUTO, promote, state=state)
    assert (phase_of(again), again.routes.adapter) == (RolloutPhase.SETTLED, "a")


@pytest.mark.parametrize(
    "verb",
    [
        RolloutApproved("ann", "x"),
        RolloutPromoted("ann", "x"),
        RolloutAborted("ann", "x"),
        RolloutPaused("ann", "x"),
        RolloutResumed("ann", "x"),
        UndoRequested("ann", "x"),
        UndoRequested("ann", "x", to="never-seen"),
        UndoRequested("ann", "x", to="base"),
    ],
)
def test_a_verb_without_an_object_is_refused_and_changes_nothing(verb: Event) -> None:
    transition = advance(State(), verb, AUTO, 1.0)
    assert transition.refused
    assert (transition.state, transition.commands) == (State(), ())


def test_undo_goes_back_one_version_then_to_the_base_model() -> None:
    state, _ = play(AUTO, *settling(1, "a"), *settling(2, "b"))
    assert (state.routes.adapter, state.routes.previous) == ("b", "a")
    state, commands = play(AUTO, UndoRequested("ann", "worse"), state=state)
    assert (state.routes.adapter, state.routes.previous) == ("a", None)
    assert commands == [PublishRoutes(state.routes)], "a flip needs nothing but routes"
    assert phase_of(state) is RolloutPhase.ROLLED_BACK
    state, _ = play(AUTO, UndoRequested("ann", "worse"), state=state)
    assert state.routes.adapter is None


def test_undo_takes_back_an_open_canary_first() -> None:
    state, _ = play(AUTO, *settling(1, "z"), *a_round(2, "a"), AdapterVerified("a", 1), RolloutPromoted("ann", "x"))
    assert state.routes.candidate == "a"
    state, _ = play(AUTO, UndoRequested("ann", "worse"), state=state)
    assert (state.routes.adapter, state.routes.candidate) == ("z", None)
    assert phase_of(state) is RolloutPhase.ABORTED


@pytest.mark.parametrize("phase", [RolloutPhase.STAGED, RolloutPhase.SHADOW, RolloutPhase.CANARY])
def test_undo_to_what_serves_ends_the_open_rollout_alone(phase: RolloutPhase) -> None:
    steps: dict[RolloutPhase, tuple[Event, ...]] = {
        RolloutPhase.STAGED: (),
        RolloutPhase.SHADOW: (AdapterVerified("c", 1),),
        RolloutPhase.CANARY: (AdapterVerified("c", 1), RolloutPromoted("ann", "x")),
    }
    before, _ = play(AUTO, *settling(1, "a"), *settling(2, "b"), *a_round(3, "c"), *steps[phase])
    assert phase_of(before) is phase
    transition = advance(before, UndoRequested("ann", "worse", to="b"), AUTO, 9.0)
    after = transition.state
    assert (after.routes.adapter, after.routes.previous, after.routes.candidate) == ("b", "a", None)
    assert after.incumbent_since == before.incumbent_since
    assert phase_of(after) is RolloutPhase.ABORTED
    assert transition.note.startswith("rollout of c aborted: undone by ann: worse")
    back, _ = play(AUTO, UndoRequested("ann", "worse"), state=after)
    assert back.routes.adapter == "a"


def test_undo_to_the_base_model_that_serves_ends_the_canary_and_nothing_else() -> None:
    state, _ = play(AUTO, UndoRequested("ann", "worse", to="base"), state=in_canary())
    assert (state.routes.adapter, state.routes.candidate, phase_of(state)) == (None, None, RolloutPhase.ABORTED)


def test_undo_to_what_bakes_is_refused_for_it_serves() -> None:
    state = in_baking()
    transition = advance(state, UndoRequested("ann", "x", to="a"), AUTO, 200.0)
    assert transition.refused
    assert transition.state == state


def test_undo_does_not_cancel_the_round_of_an_incumbent_that_stays() -> None:
    waiting, _ = play(APPROVE, *settling(1, "z"), *shadowed("a", 2), traffic("a"))
    running, _ = play(APPROVE, RoundRequested("go"), state=waiting)
    assert running.round is not None
    after, _ = play(APPROVE, UndoRequested("ann", "x", to="z"), state=running)
    assert after.round == running.round


def test_undo_to_an_earlier_version_loads_and_verifies_it_while_the_present_one_serves() -> None:
    state, _ = play(AUTO, *settling(1, "a"), *settling(2, "b"), *settling(3, "c"))
    state, commands = play(AUTO, UndoRequested("ann", "worse", to="a"), state=state)
    assert commands == [VerifyAdapter("a", 1)]
    assert state.routes.adapter == "c"
    restarted, commands = play(AUTO, DaemonStarted("1"), state=state)
    assert VerifyAdapter("a", 2) in commands
    late, _ = play(AUTO, AdapterVerified("a", 1), state=restarted)
    assert late.routes.adapter == "c", "the first attempt is over"
    done, _ = play(AUTO, AdapterVerified("a", 2), state=restarted)
    assert (done.routes.adapter, done.routes.previous, done.returning) == ("a", None, None)
    failed, _ = play(AUTO, VerificationFailed("a", 2, "damaged"), state=restarted)
    assert (failed.routes.adapter, failed.returning) == ("c", None)


def test_an_undo_cancels_the_round_that_was_built_on_the_undone_adapter() -> None:
    state, _ = play(AUTO, *settling(1, "a"), RoundRequested("go"))
    assert state.round is not None
    state, commands = play(AUTO, UndoRequested("ann", "worse"), state=state)
    assert state.round is None
    assert isinstance(commands[0], PublishRoutes), "the flip comes before everything else"


def test_a_drifted_replica_gets_no_adapter_until_it_is_healed() -> None:
    state, commands = play(AUTO, *settling(1, "a"), ReplicaDrifted("http://x:1", "restarted"))
    assert state.routes.unready == ("http://x:1",)
    assert commands[-1] == PublishRoutes(state.routes)
    again, commands = play(AUTO, ReplicaDrifted("http://x:1", "restarted"), state=state)
    assert (again, commands) == (state, [])
    state, _ = play(AUTO, UndoRequested("ann", "x"), state=state)
    assert state.routes.unready == ("http://x:1",), "an undo does not make it trusted"
    state, _ = play(AUTO, ReplicaHealed("http://x:1", "verified"), state=state)
    assert state.routes.unready == ()


def test_a_canary_that_can_no_longer_be_loaded_is_aborted() -> None:
    state, _ = play(AUTO, AdapterUnservable("a", "file changed"), state=in_canary())
    assert phase_of(state) is RolloutPhase.ABORTED
    assert state.routes.candidate is None


def test_a_way_back_that_can_no_longer_be_loaded_is_none() -> None:
    state, _ = play(AUTO, *settling(1, "a"), *settling(2, "b"), AdapterUnservable("a", "file changed"))
    assert (state.routes.adapter, state.routes.previous) == ("b", None)
    serving, commands = play(AUTO, AdapterUnservable("b", "file changed"), state=state)
    assert (serving, commands) == (state, []), "what serves is not taken away for what its files have become"


def test_a_restart_keeps_the_canary_where_it_is() -> None:
    state = in_canary()
    after, commands = play(AUTO, DaemonStarted("1"), state=state)
    assert after == state
    assert commands == [PublishRoutes(state.routes)]
    shrunk, _ = play(AUTO, traffic("a", (arm(50), arm(5))), state=state, now=101.0)
    kept, _ = play(AUTO, traffic("a", (arm(1), arm(0))), state=shrunk, now=102.0)
    assert kept.rollout is not None
    assert kept.rollout.evidence.steps[0].counts.candidate.conversations == 5


def test_a_restart_verifies_a_staged_adapter_again() -> None:
    state, _ = play(AUTO, *a_round(1, "a"))
    _, commands = play(AUTO, DaemonStarted("1"), state=state)
    assert VerifyAdapter("a", 2) in commands


def test_a_shadow_is_known_to_have_been_served_so_that_servers_which_lost_it_get_it_back() -> None:
    staged, _ = play(AUTO, *a_round(1, "a"))
    assert (desired_of(staged).candidates, desired_of(staged).proven) == (("a",), ()), "the swap loads it first"
    shadow, _ = play(AUTO, AdapterVerified("a", 1), DaemonStarted("1"), state=staged)
    assert phase_of(shadow) is RolloutPhase.SHADOW
    assert (desired_of(shadow).candidates, desired_of(shadow).proven) == (("a",), ("a",))


@pytest.mark.parametrize(
    ("days", "start", "end", "moment", "frozen"),
    [
        (("thu",), "00:00", "24:00", 0.0, True),
        (("fri",), "00:00", "24:00", 0.0, False),
        (("thu",), "16:00", "18:00", 16 * 3600.0, True),
        (("thu",), "16:00", "18:00", 18 * 3600.0, False),
        (("thu",), "22:00", "06:00", 86_400 + 5 * 3600.0, True),
        (("thu",), "22:00", "06:00", 5 * 3600.0, False),
        (("wed",), "22:00", "06:00", 5 * 3600.0, True),
    ],
)
def test_freeze_windows(days: tuple[str, ...], start: str, end: str, moment: float, frozen: bool) -> None:
    window = FreezeWindow(days, clock_seconds(start), clock_seconds(end))
    assert is_frozen((window,), moment) is frozen


def test_a_freeze_window_holds_what_would_advance() -> None:
    frozen = policy(freeze=(FreezeWindow(("thu",), 0, 86_400),))
    state, _ = play(frozen, *shadowed(), traffic("a"), now=100.0)
    assert phase_of(state) is RolloutPhase.SHADOW
    assert state.rollout is not None
    assert "freeze window" in state.rollout.hold
    state, _ = play(frozen, traffic("a"), state=state, now=100_000.0)
    assert phase_of(state) is RolloutPhase.CANARY
