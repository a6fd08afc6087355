"""How far the running phase is, from signals."""

from __future__ import annotations

from tao_daemon.daemon.progress import ProgressBoard
from tao_daemon.domain.round import Phase
from tao_daemon.domain.signals import PhaseProgressed, SamplingPaced


def test_a_running_phase_says_why_sampling_is_held_and_no_longer_than_it_is() -> None:
    board = ProgressBoard()
    board(PhaseProgressed(1, Phase.SAMPLING, 3, 10))
    board(SamplingPaced(limit=0, in_flight=0, waiting=5, slowdown=None, held="live answers are slow"))
    progress = board.current(1, Phase.SAMPLING)
    assert progress is not None
    assert (progress.fraction, progress.held) == (0.3, "live answers are slow")
    board(SamplingPaced(limit=1, in_flight=1, waiting=4, slowdown=1.0))
    progress = board.current(1, Phase.SAMPLING)
    assert progress is not None
    assert progress.held == ""
