"""What is tried, in which order, until a training fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning.memory import Fit, Load, ModelShape, fit, fit_forward, needed_bytes

SMALL = ModelShape(
    parameters=134_515_008,
    linear_widths=30 * 12_288,
    vocabulary=49_152,
    layers=30,
    hidden=576,
    queries=576,
    intermediate=1536,
)
LOAD = Load(micro_batch_tokens=8192, longest=700, largest=4000, step=32_000, total=200_000, number_bytes=4, rank=16)
GIB = 2**30


def fitted(available: float, *, checkpointing: str = "auto", headroom: float = 0.0, load: Load = LOAD) -> Fit:
    return fit(SMALL, load, checkpointing=checkpointing, available=int(available), headroom=headroom)


def need(tokens: int, *, recomputed: bool = False) -> int:
    return needed_bytes(SMALL, replace(LOAD, micro_batch_tokens=tokens), recomputed=recomputed)


def test_the_terms_add_up() -> None:
    layer = 1000 * 4 * (4 * 576 + 9 * 576 + 4 * 1536 + 7 * 16)
    expected = (
        640 * 2**20
        + 134_515_008 * 4
        + 30 * 12_288 * 16 * 20
        + 30 * layer
        + 1000 * 4 * (8 * 576 + 4 * 1536)
        + 1000 * 1000 * 7
        + 3 * 2**26
        + 2 * 1000 * 576 * 4
    )
    assert need(1000) == expected
    assert need(1000, recomputed=True) == expected - 29 * layer + 30 * 1000 * 576 * 4


def test_with_room_nothing_changes() -> None:
    assert fitted(need(8192)) == Fit(8192, False, need(8192), need(8192))


def test_then_smaller_micro_batches_then_recomputed_activations() -> None:
    assert fitted(need(8192) - 1).micro_batch_tokens == 4096
    assert fitted(need(700)).micro_batch_tokens == 700
    assert not fitted(need(700)).checkpoint_activations
    recomputed = fitted(need(700) - 1)
    assert recomputed.checkpoint_activations
    assert recomputed.micro_batch_tokens > 700


def test_off_and_on_are_kept() -> None:
    with pytest.raises(TrainingError, match=r"set training.gradient_checkpointing = \"auto\""):
        fitted(need(700) - 1, checkpointing="off")
    assert fitted(100 * GIB, checkpointing="on").checkpoint_activations


def test_a_refusal_names_needed_available_and_remedies() -> None:
    with pytest.raises(TrainingError) as caught:
        fitted(GIB, headroom=0.25)
    words = str(caught.value)
    assert f"needs {need(700, recomputed=True) / GIB:.2f} GiB at the least (700 tokens at a time)" in words
    assert "0.75 GiB of 1.00 GiB free may be used" in words
    assert all(remedy in words for remedy in ("max_sequence_tokens", "memory_headroom", "training.command"))


def test_a_small_batch_needs_no_room_for_a_large_one() -> None:
    assert needed_bytes(SMALL, replace(LOAD, step=900, total=900), recomputed=False) == need(900)


def test_only_a_step_is_kept_for_the_backward_pass() -> None:
    step = needed_bytes(SMALL, replace(LOAD, step=2000), recomputed=False)
    assert step == need(2000)
    assert needed_bytes(SMALL, replace(LOAD, step=700), recomputed=True) > need(700, recomputed=True)


def test_measuring_takes_smaller_batches_until_it_fits_and_refuses_with_figures() -> None:
    load = replace(LOAD, largest=700)
    much = fit_forward(SMALL, load, available=100 * GIB, headroom=0.0)
    assert much.micro_batch_tokens == 8192
    assert fit_forward(SMALL, load, available=much.needed - 1, headroom=0.0).micro_batch_tokens == 4096
    half = fit_forward(SMALL, replace(load, number_bytes=2), available=100 * GIB, headroom=0.0)
    assert half.needed < much.needed  # although the head is held once more
    with pytest.raises(TrainingError, match=r"needs 1\.\d+ GiB at the least \(700 tokens at a time\) and 0.50 GiB"):
        fit_forward(SMALL, load, available=GIB, headroom=0.5)


@given(st.integers(GIB, 200 * GIB), st.sampled_from(["auto", "on", "off"]), st.floats(0.0, 0.9))
def test_what_is_chosen_fits(available: int, checkpointing: str, headroom: float) -> None:
    try:
        found = fit(SMALL, LOAD, checkpointing=checkpointing, available=available, headroom=headroom)
    except TrainingError:
        assert need(700, recomputed=checkpointing != "off") > available * (1 - headroom)
        return
    assert found.needed <= available * (1 - headroom)
    assert found.needed == need(found.micro_batch_tokens, recomputed=found.checkpoint_activations)
    assert LOAD.longest <= found.micro_batch_tokens <= LOAD.micro_batch_tokens
