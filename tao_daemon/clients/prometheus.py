"""Declared metrics become objects of prometheus_client, every known series there from the start."""

from __future__ import annotations

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tao_daemon.domain.metrics import Family, Kind

CONTENT_TYPE = CONTENT_TYPE_LATEST


def new_registry() -> CollectorRegistry:
    """A registry of its own for a process; without the `_created` series, that nobody asks for."""
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    return CollectorRegistry()


def make_counter(family: Family, registry: CollectorRegistry) -> Counter:
    assert family.kind is Kind.COUNTER
    made = Counter(family.base_name, family.help, family.label_names, registry=registry)
    for values in _labelled(family):
        made.labels(*values)
    return made


def make_gauge(family: Family, registry: CollectorRegistry) -> Gauge:
    assert family.kind is Kind.GAUGE
    made = Gauge(family.name, family.help, family.label_names, registry=registry)
    if not family.labels:
        made.set(family.start)
    for values in _labelled(family):
        made.labels(*values).set(family.start)
    return made


def make_histogram(family: Family, registry: CollectorRegistry) -> Histogram:
    assert family.kind is Kind.HISTOGRAM
    made = Histogram(family.name, family.help, family.label_names, buckets=family.buckets, registry=registry)
    for values in _labelled(family):
        made.labels(*values)
    return made


def make_info(family: Family, registry: CollectorRegistry) -> Info:
    assert family.kind is Kind.INFO
    return Info(family.base_name, family.help, registry=registry)


def exposition(registry: CollectorRegistry) -> bytes:
    """The text that Prometheus scrapes."""
    return generate_latest(registry)


def _labelled(family: Family) -> list[tuple[str, ...]]:
    return list(family.known_series()) if family.labels else []
