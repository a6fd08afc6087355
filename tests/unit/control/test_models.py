"""What comes over the wire becomes values, or is refused."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from pydantic import ValidationError

from tao_daemon.control.models import Report
from tao_daemon.domain.traffic import DURATION_EDGES, ArmCounts, GatewayReport, SplitCounts

BUCKETS = len(DURATION_EDGES) + 1


def test_a_gateways_report_survives_the_wire() -> None:
    split = SplitCounts(candidate=ArmCounts(requests=4, conversations=4, errors=1))
    report = GatewayReport("g1", 3, {"a": 2}, {3: split}, tuple([0] * BUCKETS), 7, 1)
    assert Report.model_validate_json(json.dumps(asdict(report))).of("g1") == report


@pytest.mark.parametrize(
    "broken",
    [
        [],
        {},
        {"generation": -1},
        {"generation": 1, "durations": [-1]},
        {"generation": 1, "durations": [0] * (BUCKETS + 1)},
        {"generation": 1, "splits": {"x": {}}},
        {"generation": 1, "splits": {"1": {"candidate": {"errors": -1}}}},
    ],
)
def test_nonsense_is_no_report(broken: object) -> None:
    with pytest.raises(ValidationError):
        Report.model_validate(broken)
