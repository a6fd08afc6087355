"""The fingerprint: a server that serves the adapter passes, whatever else one may do does not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao_daemon.domain.adapter import Fingerprint, FingerprintProbe
from tao_daemon.rollout.fingerprint import Observation, compare

MAX_ERROR = 0.15


def fingerprint(movement: float, seed: int = 0, probes: int = 8, tokens: int = 32) -> Fingerprint:
    """Probes on which the trainer's adapter moves each token by about `movement` nats."""
    rng = random.Random(seed)
    made = []
    for _ in range(probes):
        base = tuple(-rng.expovariate(1.0) for _ in range(tokens))
        adapter = tuple(value + rng.gauss(0.0, movement) for value in base)
        made.append(FingerprintProbe(tuple(range(tokens + 2)), 2, adapter, base))
    return Fingerprint(tuple(made))


def server(wanted: Fingerprint, scale: float, noise: float, seed: int = 1) -> list[Observation]:
    """A server that applies `scale` times the adapter, with independent numerical noise on every value."""
    rng = random.Random(seed)
    return [
        Observation(
            tuple(
                base + scale * (adapter - base) + rng.gauss(0.0, noise)
                for adapter, base in zip(probe.adapter_logprobs, probe.base_logprobs, strict=True)
            ),
            tuple(base + rng.gauss(0.0, noise) for base in probe.base_logprobs),
        )
        for probe in wanted.probes
    ]


@settings(deadline=None)
@given(st.floats(0.05, 3.0), st.integers(0, 10_000))
def test_the_adapter_itself_is_accepted_through_bfloat16_noise(movement: float, seed: int) -> None:
    wanted = fingerprint(movement, seed)
    result = compare(wanted, server(wanted, scale=1.0, noise=0.03, seed=seed + 1), MAX_ERROR)
    assert result.accepted, result.reason


@settings(deadline=None)
@given(st.floats(1e-4, 3.0), st.floats(0.0, 0.05), st.integers(0, 10_000))
def test_a_server_that_ignores_the_adapter_is_refused_however_little_it_moves(
    movement: float, noise: float, seed: int
) -> None:
    wanted = fingerprint(movement, seed)
    result = compare(wanted, server(wanted, scale=0.0, noise=noise, seed=seed + 1), MAX_ERROR)
    assert not result.accepted


def test_an_ignored_adapter_is_called_what_it_is() -> None:
    wanted = fingerprint(0.08)
    result = compare(wanted, server(wanted, scale=0.0, noise=0.0), MAX_ERROR)
    assert result.numbers["adapter_error"] < MAX_ERROR
    assert "serves the base model" in result.reason


@pytest.mark.parametrize("scale", [-1.0, 0.3, 2.0])
def test_another_scale_or_direction_is_refused_though_it_is_near(scale: float) -> None:
    wanted = fingerprint(0.06)
    result = compare(wanted, server(wanted, scale=scale, noise=0.01), MAX_ERROR)
    assert result.numbers["adapter_error"] < MAX_ERROR
    assert not result.accepted


def test_another_base_model_is_refused_and_the_message_says_where_to_look() -> None:
    wanted = fingerprint(0.5)
    result = compare(wanted, server(wanted, scale=1.0, noise=0.6), MAX_ERROR)
    assert not result.accepted
    assert "base weights differ" in result.reason


def test_an_adapter_that_the_noise_hides_is_refused_because_nothing_can_be_told() -> None:
    wanted = fingerprint(0.005)
    result = compare(wanted, server(wanted, scale=1.0, noise=0.05), MAX_ERROR)
    assert not result.accepted
    assert "cannot tell" in result.reason


def test_without_noise_the_smallest_movement_is_told() -> None:
    wanted = fingerprint(1e-4)
    assert compare(wanted, server(wanted, scale=1.0, noise=0.0), MAX_ERROR).accepted
    assert not compare(wanted, server(wanted, scale=0.0, noise=0.0), MAX_ERROR).accepted


def test_no_movement_is_refused() -> None:
    wanted = fingerprint(0.0)
    assert "equals its base" in compare(wanted, server(wanted, 1.0, 0.0), MAX_ERROR).reason


def test_missing_and_broken_answers_are_refused() -> None:
    wanted = fingerprint(0.2)
    full = server(wanted, 1.0, 0.0)
    assert "7 of 8" in compare(wanted, full[:7], MAX_ERROR).reason
    short = Observation(full[0].adapter_logprobs[:-1], full[0].base_logprobs)
    assert "numbers of tokens" in compare(wanted, [short, *full[1:]], MAX_ERROR).reason
    broken = Observation((float("nan"), *full[0].adapter_logprobs[1:]), full[0].base_logprobs)
    assert "not finite" in compare(wanted, [broken, *full[1:]], MAX_ERROR).reason
    few = fingerprint(0.2, probes=1, tokens=7)
    assert "too few" in compare(few, server(few, 1.0, 0.0), MAX_ERROR).reason


def test_the_numbers_are_what_they_say() -> None:
    wanted = fingerprint(0.2)
    numbers = compare(wanted, server(wanted, 1.0, 0.0), MAX_ERROR).numbers
    assert numbers["tokens"] == 256
    assert numbers["adapter_error"] == pytest.approx(0.0, abs=1e-12)
    assert numbers["shift"] == pytest.approx(1.0)
    assert numbers["shift_error"] == pytest.approx(0.0, abs=1e-9)
    assert 0.1 < numbers["movement"] < 0.25
