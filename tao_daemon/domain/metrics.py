"""What a metric is: declared once, so that what is exposed, what is documented and what is tested are the same.

Pure: whoever keeps numbers makes its metrics from these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

OTHER = "other"
"""What a label says of a value that it does not know, so that it stays bounded."""
UNKNOWN = math.nan
"""A measurement before the first one: a comparison with it is false, so no alert fires on what nobody measured."""


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Label:
    """A label and what bounds it: all of its `values`, or in words what there is one value for each of."""

    name: str
    values: tuple[str, ...] = ()
    one_for_each: str = ""

    def __post_init__(self) -> None:
        assert bool(self.values) != bool(self.one_for_each), f"label {self.name} is bounded by values or in words"

    def known(self, value: str) -> str:
        """The value, or OTHER where only a fixed set is expected and it is not in there."""
        if not self.values or value in self.values:
            return value
        assert OTHER in self.values, f"label {self.name} has no value {value!r}"
        return OTHER


@dataclass(frozen=True, slots=True)
class Family:
    """One metric, under the name that it is queried by."""

    name: str
    kind: Kind
    unit: str
    """What its number counts or measures."""
    help: str
    """A sentence, for the exposition and the catalogue."""
    look: str
    """When somebody looks at it."""
    labels: tuple[Label, ...] = ()
    start: float = 0.0
    """Of a gauge, before anything is known."""
    buckets: tuple[float, ...] = ()
    """Upper edges of a histogram, but for the infinite one."""

    @property
    def base_name(self) -> str:
        """Without what the exposition format appends to counters and infos."""
        return self.name.removesuffix("_total").removesuffix("_info")

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    def known_series(self) -> Iterator[tuple[str, ...]]:
        """Label values of the series that are there from the start; none when a label's values are not known yet."""
        if all(label.values for label in self.labels):
            yield from product(*(label.values for label in self.labels))


def counter(name: str, unit: str, help: str, look: str, *labels: Label) -> Family:
    return Family(f"{name}_total", Kind.COUNTER, unit, help, look, labels)


def gauge(name: str, unit: str, help: str, look: str, *labels: Label, start: float = 0.0) -> Family:
    return Family(name, Kind.GAUGE, unit, help, look, labels, start)


def flag(name: str, help: str, look: str, *labels: Label) -> Family:
    """A gauge that is 0 or 1."""
    return Family(name, Kind.GAUGE, "0 or 1", help, look, labels)


def timestamp(name: str, help: str, look: str, *labels: Label) -> Family:
    """A gauge that holds a Unix second; 0 is never."""
    return Family(f"{name}_timestamp_seconds", Kind.GAUGE, "seconds", f"{help} Unix time; 0: never.", look, labels)


def histogram(name: str, unit: str, help: str, look: str, *labels: Label, buckets: tuple[float, ...]) -> Family:
    return Family(name, Kind.HISTOGRAM, unit, help, look, labels, buckets=tuple(map(float, buckets)))


def info(name: str, help: str, look: str, *labels: Label) -> Family:
    """One series with the value 1; its labels say what is."""
    return Family(f"{name}_info", Kind.INFO, "1", help, look, labels)
