"""Bad adapters are aborted by themselves on a real vLLM; a good one settles."""

from __future__ import annotations

import pytest

from bench.planted import GOOD, run

pytestmark = [pytest.mark.vllm, pytest.mark.chaos, pytest.mark.timeout(1800)]


def test_bad_adapters_are_aborted_and_a_good_one_settles() -> None:
    for row in run():
        if row["planted"] == GOOD:
            assert row["ended"] == "settled", row
            assert row["failed_requests"] == 0, row
        else:
            assert row["ended"] in ("aborted", "rolled_back"), row
