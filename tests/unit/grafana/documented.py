"""What docs/metrics.md says there is, and what dashboards and PromQL expressions ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS = Path(__file__).parents[3] / "docs" / "metrics.md"
_STANDARD = ("process_resident_memory_bytes", "process_start_time_seconds")
"""Of every process that exports metrics with Prometheus's client library."""


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    labels: dict[str, frozenset[str]]
    """The values that a label may have; empty where they depend on the configuration."""


def documented() -> dict[str, Metric]:
    """By the name of the series: a histogram is there three times."""
    found = {name: Metric(name, {}) for name in _STANDARD}
    for line in METRICS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        named = re.match(r"`(tao_\w+)`", cells[0])
        if named is None or len(cells) < 5:
            continue
        metric = Metric(named[1], dict(_labels(cells[2])))
        endings = ("_bucket", "_sum", "_count") if cells[1] == "histogram" else ("",)
        # An info metric is documented under the name of its series.
        found |= {f"{metric.name}{ending}": metric for ending in endings}
    assert len(found) > 50
    return found


def _labels(cell: str) -> Iterator[tuple[str, frozenset[str]]]:
    for part in filter(None, cell.split("<br>")):
        name, values = re.fullmatch(r"`(\w+)`: (.*)", part).groups()  # type: ignore[union-attr]
        free = re.search(r"one (for|series)|configured", values)
        yield name, frozenset() if free else frozenset(re.findall(r"[\w.]+", values))


def selectors(expr: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Every metric of ours in an expression, recorded series left out, with its matchers."""
    for name, inner in re.findall(r"(?<![\w:])(tao_\w+|process_\w+|ALERTS)(?![\w:])(?:\{([^}]*)\})?", expr):
        yield name, dict(re.findall(r'(\w+)\s*[!=]=?~?"([^"]*)"', inner))


def queries(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Title and PromQL of every panel's queries and every annotation."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["target"]["expr"]
