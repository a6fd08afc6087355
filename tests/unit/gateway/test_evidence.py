"""Evidence counters: the first failure of a conversation counts, once, for the arm it happened in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.domain.rollout import Routes
from tao_daemon.domain.traffic import KEPT_GENERATIONS, ArmCounts, SplitCounts
from tao_daemon.gateway.evidence import Evidence

ROUTES = Routes(5, "a", None, "c", 0.5, "salt")


def at(generation: int, salt: str = "salt") -> Routes:
    return Routes(generation, "a", None, "c", 0.5, salt)


def ask(
    evidence: Evidence,
    conversation: int,
    *,
    routes: Routes = ROUTES,
    candidate: bool = False,
    error: bool = False,
    slow: bool = False,
    truncated: bool = False,
) -> None:
    bound = evidence.bind(routes, conversation, to_candidate=candidate)
    bound.ended(error=error, slow=slow, truncated=truncated)


def test_a_conversation_counts_once_and_so_does_each_kind_of_failure() -> None:
    evidence = Evidence()
    for _ in range(3):
        ask(evidence, 1, candidate=True, error=True, slow=True)
    ask(evidence, 1, candidate=True, truncated=True)
    ask(evidence, 2)
    assert evidence.splits() == {5: SplitCounts(ArmCounts(1, 1), ArmCounts(4, 1, 1, 1, 1))}


def test_a_conversation_that_changed_its_arm_counts_in_both_but_fails_once() -> None:
    evidence = Evidence()
    ask(evidence, 1, error=True)
    ask(evidence, 1, routes=at(6), candidate=True, error=True)
    ask(evidence, 1, routes=at(7), candidate=True)
    assert evidence.splits() == {
        5: SplitCounts(ArmCounts(1, 1, 1), ArmCounts()),
        6: SplitCounts(ArmCounts(), ArmCounts(1, 1)),
        7: SplitCounts(ArmCounts(), ArmCounts(1, 0)),
    }


def test_a_failure_counts_under_the_generation_the_request_was_bound_under() -> None:
    evidence = Evidence()
    early = evidence.bind(at(5), 1, to_candidate=True)
    late = evidence.bind(at(6), 1, to_candidate=True)
    late.ended(error=True, slow=False, truncated=False)
    early.ended(error=True, slow=True, truncated=False)
    splits = evidence.splits()
    assert splits[5].candidate == ArmCounts(1, 1, 0, 1)
    assert splits[6].candidate == ArmCounts(1, 0, 1)


def test_a_new_salt_begins_anew_and_requests_of_the_old_one_end_in_the_old_one() -> None:
    evidence = Evidence()
    ask(evidence, 1, error=True)
    late = evidence.bind(at(5), 1, to_candidate=False)
    ask(evidence, 1, routes=at(6, "other"), error=True)
    late.ended(error=True, slow=False, truncated=True)
    splits = evidence.splits()
    assert splits[6].incumbent == ArmCounts(1, 1, 1)
    assert splits[5].incumbent == ArmCounts(2, 1, 1, 0, 1)


def test_the_latest_generations_are_kept() -> None:
    evidence = Evidence()
    early = evidence.bind(at(1), 1, to_candidate=True)
    for generation in range(2, KEPT_GENERATIONS + 4):
        ask(evidence, 1, routes=at(generation))
    early.ended(error=True, slow=False, truncated=False)
    assert list(evidence.splits()) == list(range(4, KEPT_GENERATIONS + 4))


def test_memory_is_bounded_and_the_least_recent_conversation_is_forgotten() -> None:
    evidence = Evidence(max_conversations=2)
    for conversation in (1, 2, 1, 3, 1, 2):
        ask(evidence, conversation)
    assert evidence.splits()[5].incumbent == ArmCounts(6, 4), "2 was forgotten, 1 was not"


requests = st.tuples(st.integers(0, 6), st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.integers(1, 4))


@given(st.lists(requests, max_size=60))
def test_over_all_arms_and_generations_failures_are_conversations_that_failed(
    asked: list[tuple[int, bool, bool, bool, bool, int]],
) -> None:
    evidence, total = Evidence(), SplitCounts()
    for conversation, candidate, error, slow, truncated, generation in asked:
        ask(evidence, conversation, routes=at(generation), candidate=candidate, error=error, slow=slow,
            truncated=truncated)  # fmt: skip
    for counts in evidence.splits().values():
        total += counts
    both = total.incumbent + total.candidate
    assert both.requests == len(asked)
    assert total.incumbent.conversations == len({request[0] for request in asked if not request[1]})
    assert total.candidate.conversations == len({request[0] for request in asked if request[1]})
    assert both.errors == len({request[0] for request in asked if request[2]})
    assert both.slow == len({request[0] for request in asked if request[3]})
    assert both.truncated == len({request[0] for request in asked if request[4]})
