"""What the journal tells: every kind of change once, refusals and ignored results not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, FormatChecker

from tao_daemon.domain.events import (
    AdapterDeleted,
    AdapterUnservable,
    AdapterVerified,
    BackupRestored,
    CandidateJudged,
    DaemonStarted,
    PhaseFailed,
    PromptsForgotten,
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
    TokenIssued,
    TokenRevoked,
    UndoRequested,
    VerificationFailed,
)
from tao_daemon.domain.lifecycle import TYPES
from tao_daemon.domain.report import Decision
from tao_daemon.domain.rollout import RolloutMode, RolloutPhase
from tao_daemon.domain.round import Phase
from tao_daemon.notification.cloud_event import cloud_events
from tests.machine_plays import a_round, arm, pairs, policy, settling, traffic

SCHEMA = json.loads((Path(__file__).parent / "cloudevents-1.0.schema.json").read_text())
APPROVE = policy(mode=RolloutMode.APPROVE)
GOOD = pairs("a1", 100, 0.5)


def test_an_undisturbed_round_and_its_rollout(make_play: Any, kinds: Any) -> None:
    play = make_play()
    assert kinds(play(DaemonStarted("1.0"))) == ["daemon.started"]
    (started,) = play(RoundRequested("500 new prompts"))
    assert started["subject"] == "round/1"
    assert started["data"]["reason"] == "500 new prompts"
    for event in a_round(1, "a1")[1:-2]:
        assert play(event) == [], "a finished phase is news for the progress bar alone"
    accepted, staged = play(*a_round(1, "a1")[-2:-1])
    assert kinds([accepted, staged]) == ["round.accepted", "rollout.staged"]
    assert accepted["data"]["adapter"] == staged["data"]["adapter"] == "a1"
    assert kinds(play(RoundClosed(1))) == []
    assert kinds(play(AdapterVerified("a1", 1))) == ["rollout.shadow"]
    assert kinds(play(GOOD)) == []
    (canary,) = play(traffic("a1"))
    assert canary["type"] == "io.tao-daemon.rollout.canary"
    assert canary["data"]["fraction"] == 0.1
    assert canary["data"]["evidence"]["shadow_pairs"] == 100
    assert canary["data"]["evidence"]["shadow_mean_difference"] == 0.5
    step = (arm(400), arm(200))
    assert kinds(play(traffic("a1", step))) == [], "the step takes its time"
    (second,) = play(traffic("a1", step), now=1763840100.0)
    assert (second["data"]["fraction"], second["data"]["evidence"]["candidate_conversations"]) == (0.5, 200)
    (baking,) = play(traffic("a1", step, step), now=1763840200.0)
    assert baking["data"]["phase"] == "baking"
    assert baking["data"]["previous_phase"] == "canary"
    assert baking["data"]["evidence"]["candidate_conversations"] >= 200, "that on which it was decided"
    (settled,) = play(traffic("a1", (arm(0), arm(200))), now=1763850000.0)
    assert settled["data"]["phase"] == "settled"
    assert settled["data"]["serving"] == "a1"


def staged(play: Any) -> Any:
    play(*a_round(1, "a1"), AdapterVerified("a1", 1))
    return play


def test_a_person_is_waited_for_once_and_said_so(make_play: Any, kinds: Any) -> None:
    play = staged(make_play(APPROVE))
    (waits,) = play(GOOD, traffic("a1"))
    assert kinds([waits]) == ["rollout.waiting_for_approval"]
    assert waits["data"]["evidence"]["shadow_pairs"] == 100
    assert play(traffic("a1")) == []
    (approved,) = play(RolloutApproved("ann", "looks good"))
    assert kinds([approved]) == ["rollout.approved"]
    assert (approved["data"]["actor"], approved["data"]["reason"]) == ("ann", "looks good")
    assert kinds(play(traffic("a1"))) == ["rollout.canary"]


def test_what_is_refused_or_over_says_nothing(make_play: Any) -> None:
    play = make_play()
    for event in (
        RolloutApproved("ann", "x"),
        RolloutPromoted("ann", "x"),
        RolloutAborted("ann", "x"),
        RolloutPaused("ann", "x"),
        RolloutResumed("ann", "x"),
        UndoRequested("ann", "x"),
        RoundCancelRequested("ann", "x"),
        AdapterVerified("ghost", 1),
        VerificationFailed("ghost", 1, "x"),
        CandidateJudged(9, 1, Decision.PASS, "x"),
        PhaseFailed(9, 1, Phase.SAMPLING, "x"),
        ReplicaHealed("http://vllm", "was ready"),
        GOOD,
    ):
        assert play(event) == [], event


@pytest.mark.parametrize(
    ("decision", "kind"), [(Decision.FAIL, "round.rejected"), (Decision.INCONCLUSIVE, "round.inconclusive")]
)
def test_a_verdict_is_told_with_its_reason(make_play: Any, kinds: Any, decision: Decision, kind: str) -> None:
    play = make_play()
    (event,) = play(*a_round(1, "a1", decision)[:-1])
    assert kinds([event]) == [kind]
    assert event["data"]["reason"] == "judged"


def test_a_round_that_fails_or_is_cancelled(make_play: Any, kinds: Any) -> None:
    play = make_play()
    (failed,) = play(RoundRequested("due"), PhaseFailed(1, 1, Phase.CLAIMING, "no prompts"))
    assert (kinds([failed]), failed["data"]["reason"]) == (["round.failed"], "claiming: no prompts")
    (cancelled,) = play(RoundClosed(1), RoundRequested("due"), RoundCancelRequested("ann", "lunch"))
    assert kinds([cancelled]) == ["round.cancelled"]
    assert (cancelled["data"]["actor"], cancelled["data"]["round"]) == ("ann", 2)


def test_people_hold_and_end_a_rollout(make_play: Any, kinds: Any) -> None:
    play = staged(make_play())
    assert kinds(play(RolloutPaused("ann", "wait"))) == ["rollout.paused"]
    assert play(RolloutPaused("bob", "wait too")) == []
    assert kinds(play(RolloutResumed("ann", "go"))) == ["rollout.resumed"]
    (aborted,) = play(RolloutAborted("ann", "no"))
    assert kinds([aborted]) == ["rollout.aborted"]
    assert aborted["data"]["previous_phase"] == "shadow"


def test_promoted_in_full_while_it_is_verified(make_play: Any, kinds: Any) -> None:
    play = make_play()
    play(*a_round(1, "a1"))
    assert kinds(play(RolloutPromoted("ann", "now", full=True))) == ["rollout.approved"]
    assert kinds(play(AdapterVerified("a1", 1))) == ["rollout.settled"]


def test_a_regression_in_baking_rolls_back(make_play: Any, kinds: Any) -> None:
    play = staged(make_play(policy(fractions=())))
    play(GOOD, traffic("a1"))
    (back,) = play(pairs("a1", 100, -1.0, RolloutPhase.BAKING))
    assert kinds([back]) == ["rollout.rolled_back"]
    assert back["data"]["serving"] is None
    assert "e-value" in back["data"]["reason"]


def test_a_newer_candidate_supersedes(make_play: Any, kinds: Any) -> None:
    play = staged(make_play(APPROVE))
    play(GOOD, traffic("a1"))
    events = play(*a_round(2, "a2")[:-1])
    assert kinds(events) == ["round.accepted", "rollout.superseded", "rollout.staged"]
    assert [event["subject"] for event in events] == ["round/2", "rollout/a1", "rollout/a2"]
    assert "a2 is newer" in events[1]["data"]["reason"]


def test_undo_of_what_settled_and_the_round_on_it(make_play: Any, kinds: Any) -> None:
    play = make_play()
    play(*settling(1, "a1"), RoundRequested("due"))
    events = play(UndoRequested("ann", "complaints"))
    assert kinds(events) == ["undo.done", "rollout.rolled_back", "round.cancelled"]
    assert events[0]["data"]["adapter"] == "a1"
    assert events[0]["data"]["to"] is None
    assert {event["data"]["actor"] for event in events} == {"ann"}


def test_undo_of_a_canary(make_play: Any, kinds: Any) -> None:
    play = staged(make_play())
    play(GOOD, traffic("a1"))
    assert kinds(play(UndoRequested("ann", "no"))) == ["undo.done", "rollout.aborted"]


def test_undo_to_what_must_be_loaded(make_play: Any, kinds: Any) -> None:
    play = make_play()
    for number in (1, 2, 3):
        play(*settling(number, f"a{number}"))
    assert kinds(play(UndoRequested("ann", "older was better", "a1"))) == ["undo.loading"]
    assert play(UndoRequested("bob", "x", "never-was")) == [], "refused while another is on its way"
    (failed,) = play(VerificationFailed("a1", 1, "damaged"))
    assert kinds([failed]) == ["undo.failed"]
    assert failed["data"]["reason"] == "older was better"
    play(UndoRequested("ann", "again", "a1"))
    done, rolled_back = play(AdapterVerified("a1", 1))
    assert kinds([done, rolled_back]) == ["undo.done", "rollout.rolled_back"]
    assert (done["data"]["to"], done["data"]["serving"], done["data"]["actor"]) == ("a1", "a1", "ann")


def test_verification_that_fails_aborts(make_play: Any, kinds: Any) -> None:
    play = make_play()
    (event,) = play(*a_round(1, "a1"), VerificationFailed("a1", 1, "log-probabilities differ"))
    assert (kinds([event]), event["data"]["reason"]) == (["rollout.aborted"], "log-probabilities differ")


@pytest.mark.parametrize(
    ("event", "kind", "subject"),
    [
        (ReplicaDrifted("http://v1", "gone"), "replica.drifted", "replica/http://v1"),
        (AdapterUnservable("a1", "damaged"), "adapter.unservable", "adapter/a1"),
        (AdapterDeleted("a1", "retention"), "adapter.deleted", "adapter/a1"),
        (TokenIssued("t1", "ci", ("read",), None, "ann", "ci"), "token.issued", "token/t1"),
        (TokenRevoked("t1", "ci", "ann", "leaked"), "token.revoked", "token/t1"),
        (BackupRestored(1.0, 9, "ann", "disk died"), "daemon.restored", "daemon"),
        (
            PromptsForgotten("e1", 3, "subject", (1,), ("a1",), (), "ann", "asked for it"),
            "prompts.forgotten",
            "prompts",
        ),
    ],
)
def test_what_is_told_by_name(make_play: Any, kinds: Any, event: Any, kind: str, subject: str) -> None:
    (told,) = make_play()(event)
    assert (kinds([told]), told["subject"]) == ([kind], subject)
    assert told["data"]["reason"] == event.reason


def test_a_replica_is_told_of_when_it_changes(make_play: Any, kinds: Any) -> None:
    play = make_play()
    play(ReplicaDrifted("http://v1", "gone"))
    assert play(ReplicaDrifted("http://v1", "still gone")) == []
    assert kinds(play(ReplicaHealed("http://v1", "verified"))) == ["replica.healed"]


def test_an_unknown_event_says_nothing(make_play: Any) -> None:
    play = make_play()
    play(DaemonStarted("1"))
    entry = replace(play.entries[0], event={"type": "MoonLanded", "reason": "why not"})
    assert cloud_events(entry, entry.state_after, "s") == []


@pytest.fixture
def whole_life(make_play: Callable[..., Any]) -> list[tuple[Any, list[Any]]]:
    """Entries of a varied life with what they told."""
    play = make_play(APPROVE)
    told = []
    for event in (
        DaemonStarted("1"),
        *settling(1, "a1"),
        *a_round(2, "a2"),
        AdapterVerified("a2", 1),
        RolloutPaused("ann", "hm"),
        RolloutResumed("ann", "ok"),
        RolloutPromoted("ann", "sure", full=True),
        RoundRequested("due"),
        UndoRequested("ann", "no"),
        ReplicaDrifted("http://v1", "gone"),
    ):
        events = play(event)
        told.append((play.entries[-1], events))
    return told


def test_every_event_is_a_valid_cloud_event_with_the_head(whole_life: Any) -> None:
    seen = [event for _, events in whole_life for event in events]
    assert len(seen) > 15
    validator = Draft7Validator(SCHEMA, format_checker=FormatChecker())
    for entry, events in whole_life:
        for number, event in enumerate(events):
            assert list(validator.iter_errors(event)) == []
            assert event["data"]["journal"] == {"seq": entry.seq, "hash": entry.hash}
            assert event["id"] == f"{entry.seq}-{entry.hash[:12]}-{number}"
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
            assert event["type"].removeprefix("io.tao-daemon.") in TYPES
    assert len({event["id"] for event in seen}) == len(seen)


def test_telling_again_says_the_same(whole_life: Any) -> None:
    before: Any = {}
    for entry, events in whole_life:
        assert cloud_events(entry, before, "tao-test") == events
        before = entry.state_after
