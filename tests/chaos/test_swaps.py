"""100 swaps and 100 undos under streaming load on two replicas: no request fails, no stream is cut."""

from __future__ import annotations

import pytest

from bench.swap import SWAPS, run

pytestmark = [pytest.mark.vllm, pytest.mark.chaos, pytest.mark.timeout(3000)]


def test_no_request_notices_a_hundred_swaps() -> None:
    found = run()
    assert found["swaps"] == found["undos"] == SWAPS
    assert found["failed_requests"] == 0, found["failures"]
    assert found["requests"] > 10 * SWAPS
    assert found["streams"] > found["requests"] // 4
    adapters = [version for version in found["versions"] if version != "base"]
    assert len(adapters) == 2, "both adapters answered clients"
    assert found["beside_backlog_and_rounds"]["rounds_started"] > 0
