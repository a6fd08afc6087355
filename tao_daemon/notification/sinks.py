"""What a place that is told has in common: a name, delivery of one event, and two ways to fail."""

from __future__ import annotations

from typing import Protocol

from tao_daemon.notification.cloud_event import CloudEvent


class Undelivered(Exception):
    """It may be taken later. The message names no address: an address may be a secret.

    `pause_seconds`: how long the receiver asked to be left alone.
    """

    def __init__(self, message: str, pause_seconds: float | None = None) -> None:
        super().__init__(message)
        self.pause_seconds = pause_seconds


class Refused(Exception):
    """It will never be taken. The message names no address."""


class Sink(Protocol):
    """One place that is told."""

    @property
    def name(self) -> str: ...

    async def deliver(self, event: CloudEvent) -> None:
        """Returns when the receiver has it. Has a deadline. Raises Undelivered or Refused, and nothing else."""
        ...

    async def close(self) -> None: ...
