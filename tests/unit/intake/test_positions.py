from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.intake.backoff import backoff_seconds
from tao_daemon.intake.positions import Break, Position, View, Watchdog, plan_start, recover, source_topic


def test_a_buffered_position_wins_over_everything() -> None:
    plan = plan_start({0: Position(2, 70)}, {0: 5}, {0: 100}, start="latest")
    assert plan.positions == {0: Position(2, 70)}
    assert plan.breaks == ()
    assert plan.chosen == frozenset()


def test_deleted_records_are_a_break_of_their_number() -> None:
    plan = plan_start({0: Position(1, 70), 1: Position(1, 9)}, {0: 90, 1: 0}, {}, start="earliest")
    assert plan.positions[0] == Position(1, 90)
    assert plan.breaks == (Break(0, 20),)
    assert plan.chosen == frozenset({0})


def test_a_topic_never_read_begins_where_the_config_says() -> None:
    assert plan_start({}, {0: 5}, {0: 100}, start="earliest").positions[0].offset == 5
    late = plan_start({}, {0: 5}, {0: 100}, start="latest")
    assert late.positions[0].offset == 100
    assert late.chosen == frozenset({0}), "must be written, or a crash would begin later still"


def test_a_partition_that_appears_later_is_read_whole() -> None:
    plan = plan_start({0: Position(1, 50)}, {0: 0, 1: 0}, {0: 60, 1: 40}, start="latest")
    assert plan.positions[1] == Position(1, 0)
    assert plan.breaks == ()


def test_recovery_tells_retention_from_truncation() -> None:
    assert recover(Position(1, 10), oldest=30, end=90) == (Position(1, 30), 20)
    assert recover(Position(1, 50), oldest=0, end=10) == (Position(2, 0), 40)
    assert recover(Position(2, 50), oldest=0, end=60, diverged_at=45) == (Position(3, 45), 5)


@given(st.integers(1, 5), st.integers(1, 5))
def test_lives_of_a_log_have_distinct_names(a: int, b: int) -> None:
    assert (source_topic("t", a) == source_topic("t", b)) == (a == b)
    assert source_topic("t", 1) == "t"


def test_watchdog_reports_a_frozen_partition_with_lag_only() -> None:
    dog = Watchdog(stuck_seconds=30, truncation_seconds=5)
    views = {0: View(10, 20), 1: View(20, 20), 2: View(5, None)}
    assert dog.stuck(0, views) == []
    assert dog.stuck(29, views) == []
    assert dog.stuck(30, views) == [0]
    assert dog.stuck(31, {**views, 0: View(11, 20)}) == []
    assert dog.stuck(60, {**views, 0: View(11, 20)}) == []
    assert dog.stuck(61, {**views, 0: View(11, 20)}) == [0]


def test_watchdog_does_not_count_time_in_which_reading_rests() -> None:
    dog = Watchdog(stuck_seconds=30, truncation_seconds=5)
    dog.stuck(0, {0: View(10, 20)})
    dog.rest()
    assert dog.stuck(31, {0: View(10, 20)}) == []


def test_truncation_must_persist() -> None:
    dog = Watchdog(stuck_seconds=30, truncation_seconds=5)
    assert dog.truncated(0, {0: View(10, 4)}) == []
    assert dog.truncated(4, {0: View(10, 12)}) == []
    assert dog.truncated(6, {0: View(10, 4)}) == []
    assert dog.truncated(11, {0: View(10, 4)}) == [0]


@given(st.integers(1, 10_000), st.integers())
def test_backoff_is_bounded_and_repeatable(attempt: int, seed: int) -> None:
    pause = backoff_seconds(attempt, first=0.2, maximum=10, seed=seed)
    assert 0.1 <= pause <= 10
    assert pause == backoff_seconds(attempt, first=0.2, maximum=10, seed=seed)
    if attempt > 8:
        assert pause >= 5
