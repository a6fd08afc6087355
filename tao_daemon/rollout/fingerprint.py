"""Does a server truly serve the adapter? Told by log-probabilities: a load answered with 200 proves nothing.

Pure. Two questions, because either alone is fooled: are the server's values close to the trainer's (a server
that ignores a gentle adapter is close too), and does the server differ from its own base the way the trainer
differs from its (regression through the origin of one shift on the other: 1 when served, 0 when ignored)?
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tao_daemon.domain.adapter import Fingerprint

MIN_TOKENS = 8
"""Completion tokens over all probes, below which nothing is concluded."""
_SHIFT_RANGE = (0.5, 1.5)
_MAX_SHIFT_ERROR = 0.1
"""Standard error of the shift: an ignored adapter would have to be 5 of them off to be taken for a served one."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A server's nats per completion token of one probe, under the adapter's name and under the base's."""

    adapter_logprobs: tuple[float, ...]
    base_logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether a server serves the adapter: the numbers, and what they mean in words."""

    accepted: bool
    reason: str
    numbers: Mapping[str, float]


def compare(fingerprint: Fingerprint, observed: Sequence[Observation], max_error: float) -> Comparison:
    """Compare a server with the trainer over all probes. `max_error`: largest mean absolute difference, nats.

    Numbers: `tokens`; `adapter_error`, `base_error` (server against trainer); `movement` (trainer's adapter
    against its base, mean absolute); `shift` (1: the server moves as the trainer does) and its `shift_error`.
    """
    if problem := _unusable(fingerprint, observed):
        return Comparison(False, problem, {})
    probes = fingerprint.probes
    trainer = [value for probe in probes for value in probe.adapter_logprobs]
    trainer_base = [value for probe in probes for value in probe.base_logprobs]
    server = [value for observation in observed for value in observation.adapter_logprobs]
    server_base = [value for observation in observed for value in observation.base_logprobs]
    expected = [a - b for a, b in zip(trainer, trainer_base, strict=True)]
    actual = [a - b for a, b in zip(server, server_base, strict=True)]
    shift, shift_error = _slope(expected, actual)
    numbers = {
        "tokens": float(len(trainer)),
        "adapter_error": _distance(server, trainer),
        "base_error": _distance(server_base, trainer_base),
        "movement": sum(map(abs, expected)) / len(expected),
        "shift": shift,
        "shift_error": shift_error,
    }
    problems = _problems(numbers, max_error)
    return Comparison(not problems, "; ".join(problems) or _agreement(numbers), numbers)


def _unusable(fingerprint: Fingerprint, observed: Sequence[Observation]) -> str:
    if len(fingerprint.probes) != len(observed):
        return f"{len(observed)} of {len(fingerprint.probes)} probes were answered"
    for index, (probe, seen) in enumerate(zip(fingerprint.probes, observed, strict=True)):
        rows = (probe.adapter_logprobs, probe.base_logprobs, seen.adapter_logprobs, seen.base_logprobs)
        if len({len(row) for row in rows}) != 1:
            return f"probe {index}: the server and the trainer have different numbers of tokens"
        if not all(math.isfinite(value) for row in rows for value in row):
            return f"probe {index}: a log-probability is not finite"
    tokens = sum(len(probe.adapter_logprobs) for probe in fingerprint.probes)
    return "" if tokens >= MIN_TOKENS else f"{tokens} probe tokens are too few to tell; at least {MIN_TOKENS}"


def _problems(numbers: Mapping[str, float], max_error: float) -> list[str]:
    if numbers["movement"] == 0.0:
        return ["the trainer's adapter equals its base on every probe"]
    problems = []
    if numbers["adapter_error"] > max_error:
        problems.append(
            f"the server differs from the trainer by {numbers['adapter_error']:.4f} nats per token, "
            f"limit {max_error:g} (on the base model by {numbers['base_error']:.4f}: if that is large too, the base "
            "weights differ)"
        )
    low, high = _SHIFT_RANGE
    if numbers["shift_error"] > _MAX_SHIFT_ERROR:
        problems.append(
            "cannot tell whether the adapter is served: it moves the probes by "
            f"{numbers['movement']:.4f} nats per token, too little against the noise between server and "
            f"trainer ({numbers['base_error']:.4f})"
        )
    elif not low <= numbers["shift"] <= high:
        problems.append(
            f"the server moves {numbers['shift']:.0%} of the way that the trainer's adapter does, allowed "
            f"{low:.0%} to {high:.0%}; 0% means that it loaded the adapter and serves the base model"
        )
    return problems


def _agreement(numbers: Mapping[str, float]) -> str:
    return (
        f"differs from the trainer by {numbers['adapter_error']:.4f} nats per token and moves "
        f"{numbers['shift']:.0%} ± {2 * numbers['shift_error']:.0%} of its way "
        f"over {numbers['tokens']:.0f} tokens"
    )


def _slope(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Least squares of y = slope · x, and the slope's standard error from the residuals."""
    power = sum(value * value for value in x)
    if power == 0.0:
        return 0.0, math.inf
    slope = sum(a * b for a, b in zip(x, y, strict=True)) / power
    residual = sum((b - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    return slope, math.sqrt(residual / (len(x) - 1) / power)


def _distance(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(abs(a - b) for a, b in zip(left, right, strict=True)) / len(left)
