"""A server is waited for as long as configured, whenever in the work it first fails."""

from __future__ import annotations

from tao_daemon.daemon.outage import OutagePatience


def pauses(patience: OutagePatience, now: float) -> list[float]:
    """Of an outage that does not end, from `now` on; every try fails at once."""
    found = []
    while (pause := patience.next_pause(now)) is not None:
        found.append(pause)
        now += pause
    return found


def test_pauses_double_up_to_a_minute_and_add_up_to_the_limit() -> None:
    found = pauses(OutagePatience(200.0), 5.0)
    assert found == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 18.0]
    assert sum(found) == 200.0


def test_hours_of_work_before_take_nothing_from_it() -> None:
    assert sum(pauses(OutagePatience(200.0), 50_000.0)) == 200.0


def test_tries_that_take_long_count() -> None:
    patience = OutagePatience(200.0)
    assert patience.next_pause(10.0) == 2.0
    assert patience.next_pause(209.0) == 1.0
    assert patience.next_pause(210.0) is None


def test_no_patience_is_none() -> None:
    assert OutagePatience(0.0).next_pause(1.0) is None


def test_work_that_got_further_has_a_second_outage_to_itself() -> None:
    patience = OutagePatience(200.0)
    patience.reached(3)
    assert patience.next_pause(10.0) == 2.0
    patience.reached(4)
    assert sum(pauses(patience, 5000.0)) == 200.0


def test_work_that_fails_at_the_same_place_again_gets_no_more_time() -> None:
    patience = OutagePatience(200.0)
    now, tries = 10.0, 0
    for place in (1, 2, 3):
        patience.reached(place)
    while (pause := patience.next_pause(now)) is not None:
        now, tries = now + pause, tries + 1
        for place in (1, 2, 3):
            patience.reached(place)
    assert now == 210.0
    assert tries == 8
