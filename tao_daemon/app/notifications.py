"""Who is told, from the [events] section: a notifier per sink, each with a task and a cursor file of its own.

cursors → tasks → (nudge)* → what is there is told, for a moment → cancel
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tao_daemon.app.paths import journal_path
from tao_daemon.config import Config
from tao_daemon.domain.signals import Emit
from tao_daemon.notification.cursor import Cursor
from tao_daemon.notification.kafka_topic import KafkaTopicSink
from tao_daemon.notification.notifier import PATIENT, Notifier, Pauses
from tao_daemon.notification.sinks import Sink
from tao_daemon.notification.webhook import WebhookSink
from tao_daemon.registry.journal_reader import ReadOnlyJournal

_FINISH_SECONDS = 2.0
_EVERYTHING = ("*",)


@dataclass(frozen=True, slots=True)
class Notifications:
    """Running notifiers. The tasks end only by a bug, or when the context ends."""

    notifiers: tuple[Notifier, ...]
    tasks: tuple[asyncio.Task[None], ...]

    def nudge(self) -> None:
        """The journal grew. Never waits."""
        for notifier in self.notifiers:
            notifier.nudge()


@asynccontextmanager
async def notifying(config: Config, emit: Emit, pauses: Pauses = PATIENT) -> AsyncIterator[Notifications]:
    """Enter it when the journal exists and nothing has been appended yet: a new sink is told from there on."""
    # Of its own, which a slow receiver may fill; behind the proxy of the environment, as addresses outside are.
    async with aiohttp.ClientSession(trust_env=True) as session:
        sinks = _sinks(config, session)
        notifiers = await asyncio.to_thread(_notifiers, config, sinks, emit, pauses)
        tasks = tuple(asyncio.create_task(notifier.run()) for notifier in notifiers)
        try:
            yield Notifications(notifiers, tasks)
        finally:
            for notifier in notifiers:
                notifier.finish()
            if tasks:
                await asyncio.wait(tasks, timeout=_FINISH_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for sink, _ in sinks:
                await sink.close()


def _sinks(config: Config, session: aiohttp.ClientSession) -> list[tuple[Sink, tuple[str, ...]]]:
    """Each with the types of events that it wants."""
    events = config.events
    found: list[tuple[Sink, tuple[str, ...]]] = []
    if events.topic:
        found.append((KafkaTopicSink(config.kafka, events.topic), _EVERYTHING))
    found += [(WebhookSink(webhook, session), webhook.types) for webhook in events.webhooks]
    return found


def _notifiers(
    config: Config, sinks: list[tuple[Sink, tuple[str, ...]]], emit: Emit, pauses: Pauses
) -> tuple[Notifier, ...]:
    journal = ReadOnlyJournal(journal_path(config))
    return tuple(
        Notifier(
            sink,
            journal,
            Cursor(_cursor_path(config, sink.name)),
            source=config.events.source,
            types=types,
            emit=emit,
            pauses=pauses,
        )
        for sink, types in sinks
    )


def _cursor_path(config: Config, name: str) -> Path:
    return config.daemon.data_dir / "notifications" / f"{name}.json"
