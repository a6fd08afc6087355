"""How many records wait in Kafka: folded from signals, for the status."""

from __future__ import annotations

from tao_daemon.domain.signals import IntakeLagMeasured, Signal


class IntakeLag:
    """Remembers the latest measurement of every partition. An `Emit`, callable from any thread."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, int], int] = {}

    def __call__(self, signal: Signal) -> None:
        if isinstance(signal, IntakeLagMeasured):
            self._records[signal.topic, signal.partition] = signal.records

    @property
    def records(self) -> int | None:
        """Over all partitions; None before the first measurement."""
        found = list(self._records.values())
        return sum(found) if found else None
