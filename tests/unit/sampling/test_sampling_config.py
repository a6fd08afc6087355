"""What the section refuses, and says why."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tao_daemon.config import Sampling


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"strategies": [{"name": "plain", "instruction": "Think."}]}, "'plain' .* another name"),
        ({"first_completions": 1}, "first_completions is 1.* set 2 or more, or 0"),
        ({"completions": 4, "first_completions": 5}, r"first_completions \(5\) exceeds completions \(4\)"),
        ({"most_completions": 16}, r"most_completions \(16\) .*without first_completions"),
        (
            {"completions": 8, "first_completions": 2, "most_completions": 4},
            r"most_completions \(4\) is below completions \(8\)",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Sampling(**section)


def test_waves_that_fit_are_taken() -> None:
    waves = Sampling(completions=4, first_completions=2, most_completions=4)
    assert (waves.first_completions, waves.most_completions) == (2, 4)
