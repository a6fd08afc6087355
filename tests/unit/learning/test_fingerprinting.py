"""A fingerprint that proves nothing is refused."""

from __future__ import annotations

import math

import pytest

from tao_daemon.domain.adapter import Fingerprint, FingerprintProbe
from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning.fingerprinting import checked_change


def changed(*logprobs: float) -> Fingerprint:
    """A probe for each, of a token that the base gives −1 nats."""
    return Fingerprint(tuple(FingerprintProbe((1, 2), 1, (value,), (-1.0,)) for value in logprobs))


def test_the_largest_change_is_told() -> None:
    assert checked_change(changed(-1.5, -4.0, -1.0)) == 3.0


@pytest.mark.parametrize("strange", [math.nan, -math.inf])
def test_one_strange_probe_is_enough_to_refuse(strange: float) -> None:
    for fingerprint in (changed(strange, -2.0), changed(-2.0, strange)):
        with pytest.raises(TrainingError, match="not finite"):
            checked_change(fingerprint)


def test_no_change_is_refused() -> None:
    with pytest.raises(TrainingError, match="changes nothing"):
        checked_change(changed(-1.0, -1.0))
