"""Tells the daemon what this gateway does: the evidence of a rollout, and the acknowledgement that a flip waits for.

Invariants: a report never holds up a request; one that fails is counted, and the next one says all it said, because
counters only grow.

started → (a new generation | the interval) → report → … → stopped → the last report
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import aiohttp

from tao_daemon.domain.traffic import GatewayReport
from tao_daemon.gateway.meters import Meters
from tao_daemon.gateway.token import Token

log = logging.getLogger(__name__)

DEADLINE_SECONDS = 3.0


class Reporter:
    """`run` until cancelled, then `send` once more and `leave`."""

    def __init__(
        self,
        daemon_url: str,
        session: aiohttp.ClientSession,
        snapshot: Callable[[], GatewayReport],
        token: Token,
        meters: Meters,
        *,
        every_seconds: float,
    ) -> None:
        self._url = f"{daemon_url.rstrip('/')}/v1/gateways"
        self._session = session
        self._snapshot = snapshot
        self._token = token
        self._meters = meters
        self._every = every_seconds
        self._due = asyncio.Event()
        self._works: bool | None = None

    def nudge(self) -> None:
        """Report now: something changed that the daemon waits for."""
        self._due.set()

    async def run(self) -> None:
        while True:
            self._due.clear()
            await self.send()
            try:
                async with asyncio.timeout(self._every):
                    await self._due.wait()
            except TimeoutError:
                pass

    async def send(self) -> None:
        """Report once, within the deadline, whatever comes of it."""
        report = self._snapshot()
        timeout = aiohttp.ClientTimeout(total=DEADLINE_SECONDS)
        try:
            async with self._session.put(
                f"{self._url}/{report.gateway}", json=to_json(report), headers=self._token.headers(), timeout=timeout
            ) as response:
                status = response.status
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self._note(type(error).__name__)
            return
        if status == 401:
            self._token.refused()
        self._note("" if status == 204 else f"it answered {status}")

    async def leave(self) -> None:
        """Say that this gateway ends, so that nothing waits for its lease."""
        timeout = aiohttp.ClientTimeout(total=DEADLINE_SECONDS)
        url = f"{self._url}/{self._snapshot().gateway}"
        try:
            async with self._session.delete(url, headers=self._token.headers(), timeout=timeout) as response:
                response.release()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            log.info("the daemon does not hear that this gateway ends", extra={"error": type(error).__name__})

    def _note(self, problem: str) -> None:
        """Count a failure; log when it begins and when it ends."""
        self._meters.reported(not problem)
        if bool(problem) is self._works or self._works is None:
            level, text = (logging.WARNING, "reports fail") if problem else (logging.INFO, "reports arrive")
            log.log(level, text, extra={"url": self._url, "problem": problem})
        self._works = not problem


def to_json(report: GatewayReport) -> dict[str, Any]:
    """The report as PUT /v1/gateways/{gateway} takes it: JSON has text keys and lists."""
    value = asdict(report)
    value["splits"] = {str(generation): counts for generation, counts in value["splits"].items()}
    return {**value, "durations": list(report.durations)}
