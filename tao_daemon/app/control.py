"""The control API of a running daemon, put together."""

from __future__ import annotations

import time

from tao_daemon.app.ground import Ground
from tao_daemon.app.paths import journal_path
from tao_daemon.app.workers import Workers
from tao_daemon.control.auth import Authenticator, ensure_token
from tao_daemon.control.http_api import Api
from tao_daemon.control.live import LiveFeed
from tao_daemon.control.past import Past
from tao_daemon.control.records import Records
from tao_daemon.control.service import Service
from tao_daemon.control.tokens import TokenFile
from tao_daemon.daemon.intake_lag import IntakeLag
from tao_daemon.daemon.progress import ProgressBoard
from tao_daemon.registry.journal_reader import ReadOnlyJournal


def build_api(ground: Ground, workers: Workers) -> Api:
    """It listens to signals and transitions from now on."""
    config, tokens = ground.config, TokenFile(ground.config.daemon.data_dir)
    progress, lag = ProgressBoard(), IntakeLag()
    journal = ReadOnlyJournal(journal_path(config))
    service = Service(
        supervisor=workers.supervisor,
        board=ground.board,
        progress=progress,
        intake_lag=lag,
        store=ground.store,
        traffic=ground.traffic,
        watch=workers.watch,
        keeper=workers.keeper,
        tokens=tokens,
        metrics=ground.metrics,
        policy=ground.policy,
        clock=time.time,
        intake_state=lambda: workers.source.state if config.kafka.enabled else "off",
        trigger_reason=lambda: workers.scheduler.reason,
    )
    feed = LiveFeed(journal, service.running)
    for listener in (progress, lag, feed):
        ground.signals.add(listener)
    ground.bell.add(feed.nudge)
    return Api(
        service=service,
        records=Records(Past(ground.parts.archive, journal), ground.parts.adapters, ground.store),
        feed=feed,
        authenticator=Authenticator(ensure_token(config.daemon.data_dir), tokens, time.time),
        observe=ground.metrics.control.observe,
    )
