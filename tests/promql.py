"""What metrics there are to ask for, and what dashboards and PromQL expressions ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tao_daemon.telemetry.catalogue import exposed_names, families

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
    for family in families():
        metric = Metric(family.name, {label.name: frozenset(label.values) for label in family.labels})
        found |= dict.fromkeys(exposed_names(family), metric)
    assert len(found) > 50
    return found


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
