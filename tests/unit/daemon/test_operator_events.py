"""What operators do to data_dir while the daemon is down, as its machine sees it."""

from __future__ import annotations

from dataclasses import replace

from tao_daemon.daemon.codec import decode_event, encode_event
from tao_daemon.daemon.machine import advance
from tao_daemon.daemon.state import State
from tao_daemon.domain.commands import PublishRoutes
from tao_daemon.domain.events import BackupRestored, PromptsForgotten
from tao_daemon.domain.rollout import Routes
from tests.machine_plays import AUTO

STATE = State(routes=Routes(7, "r000001-aaaaaaaaaaaa", previous="r000000-bbbbbbbbbbbb"))
FORGOTTEN = PromptsForgotten(
    "e1", 3, "subject", (1, 2), ("r000001-aaaaaaaaaaaa",), (("r000001-aaaaaaaaaaaa", "f" * 64),), "dpo", "request 12"
)


def test_an_erasure_changes_nothing_and_is_told() -> None:
    step = advance(STATE, FORGOTTEN, AUTO, 5.0)
    assert (step.state, step.commands, step.refused) == (STATE, (), False)
    assert step.note == "3 prompts erased by subject: request 12; adapters trained on them: r000001-aaaaaaaaaaaa"
    untouched = replace(FORGOTTEN, adapters=())
    assert advance(STATE, untouched, AUTO, 5.0).note == "3 prompts erased by subject: request 12"


def test_a_restore_publishes_routes_that_every_gateway_takes_for_newer() -> None:
    step = advance(STATE, BackupRestored(0.0, 1_700_000_000, "ann", "a fire"), AUTO, 5.0)
    assert step.state.routes == replace(STATE.routes, generation=1_700_000_000)
    assert step.commands == (PublishRoutes(step.state.routes),)
    assert step.note == "restored from a backup of 1970-01-01 00:00:00 UTC: a fire"
    again = advance(step.state, BackupRestored(0.0, 1_600_000_000, "ann", "the clock went back"), AUTO, 5.0)
    assert again.state.routes.generation == 1_700_000_001


def test_both_survive_the_journal() -> None:
    for event in (FORGOTTEN, BackupRestored(1.0, 2, "ann", "r")):
        assert decode_event(encode_event(event)) == event
