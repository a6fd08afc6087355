"""The routes that read. Each demands `read`; probes, metrics and the API's own description are open."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from tao_daemon.control import models
from tao_daemon.control.access import Access, identity_of
from tao_daemon.control.live import LiveFeed
from tao_daemon.control.problems import RESPONSES, not_found
from tao_daemon.control.records import Records
from tao_daemon.control.scopes import Scope
from tao_daemon.control.service import Service, scope_names
from tao_daemon.domain.errors import JournalError
from tao_daemon.domain.report import AnswerOrder

log = logging.getLogger(__name__)

RoundId = Annotated[int, Path(ge=1, le=2**53)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Number = Annotated[int, Query(ge=1, le=2**53)]
NotNegative = Annotated[int, Query(ge=0, le=2**53)]


def open_routes(service: Service) -> APIRouter:
    """What needs no token: nothing of what the daemon has learned or seen is in it."""
    router = APIRouter(tags=["health"])

    @router.get("/livez", response_model=models.Live, summary="The process lives")
    async def livez() -> models.Live:
        return models.Live(live=True)

    @router.get(
        "/readyz", response_model=models.Ready, responses={503: {"model": models.Ready}}, summary="Routes are published"
    )
    async def readyz() -> Response:
        reason = service.not_ready()
        ready = models.Ready(ready=reason is None, reason=reason)
        return JSONResponse(ready.model_dump(), 503 if reason else 200)

    @router.get("/metrics", response_class=Response, summary="Metrics, for Prometheus")
    async def metrics() -> Response:
        body, content_type = await service.exposition()
        return Response(body, headers={"Content-Type": content_type})

    return router


def read_routes(service: Service, access: Access) -> APIRouter:
    """What is now."""
    router = APIRouter(prefix="/v1", tags=["now"], responses=RESPONSES, dependencies=[access.to(Scope.READ)])

    @router.get("/status", summary="What serves, what runs, what waits")
    async def status() -> models.Status:
        return await service.status()

    @router.get("/rollout", summary="The latest rollout with its evidence")
    async def rollout() -> models.Rollout:
        found = service.rollout()
        if found is None:
            raise not_found("there was no rollout yet", "a candidate that passes the gate begins one")
        return found

    @router.get("/gateways", summary="Gateways whose lease runs")
    async def gateways() -> models.Gateways:
        return models.Gateways(gateways=service.gateways())

    @router.get("/replicas", summary="Model servers: what each has loaded, and what is wrong with it")
    async def replicas() -> models.Replicas:
        return models.Replicas(replicas=service.replicas())

    @router.get("/buffer", summary="What the buffer holds")
    async def buffer() -> models.Buffer:
        return await service.buffer()

    return router


def whoami_route(access: Access) -> APIRouter:
    """Open to every valid token."""
    router = APIRouter(prefix="/v1", tags=["tokens"], responses=RESPONSES, dependencies=[access.to()])

    @router.get("/whoami", summary="Whose token this is, and what it may do")
    async def whoami(request: Request) -> models.Whoami:
        identity = identity_of(request)
        return models.Whoami(name=identity.name, scopes=scope_names(identity.scopes))

    return router


def record_routes(records: Records, access: Access) -> APIRouter:
    """What was."""
    router = APIRouter(prefix="/v1", tags=["past"], responses=RESPONSES, dependencies=[access.to(Scope.READ)])

    @router.get("/rounds", summary="Rounds, oldest first: the newest `limit` below `before`")
    async def rounds(limit: Limit = 100, before: Number | None = None) -> models.Rounds:
        return await records.rounds(limit, before)

    @router.get("/rounds/trend", summary="Held-out difference over rounds")
    async def trend(limit: Limit = 200) -> models.RoundTrend:
        return await records.trend(limit)

    @router.get("/rounds/compare", summary="Two rounds side by side")
    async def compare(left: Number, right: Number) -> models.Document:
        return await records.comparison(left, right)

    @router.get("/rounds/{id:int}", summary="The report of a round")
    async def round_report(id: RoundId) -> models.Document:
        return await records.round(id)

    @router.get("/rounds/{id:int}/rewards", summary="How the rewards of a round are distributed, per strategy")
    async def rewards(id: RoundId) -> models.Document:
        return await records.rewards(id)

    @router.get("/rounds/{id:int}/answers", summary="Answers to held-out prompts, side by side")
    async def side_by_side(
        id: RoundId,
        order: AnswerOrder = AnswerOrder.REGRESSIONS,
        limit: Annotated[int, Query(ge=1, le=200)] = 20,
        offset: NotNegative = 0,
    ) -> models.Document:
        return await records.answers(id, order, limit, offset)

    @router.get("/rollouts", summary="Rollouts with their steps, the latest first")
    async def rollouts(limit: Limit = 50) -> models.PastRollouts:
        return await records.rollouts(limit)

    @router.get("/adapters", summary="Adapters with their lineage, oldest first")
    async def adapters() -> models.Adapters:
        return await records.adapters()

    @router.get("/adapters/{name}", summary="One adapter")
    async def adapter(name: Annotated[str, Path(max_length=200)]) -> models.Document:
        return await records.adapter(name)

    @router.get("/audit", summary="The journal: every decision, who made it and why")
    async def audit(after: NotNegative = 0, limit: Limit = 100, full: bool = False) -> models.Audit:
        return await records.audit(after, limit, full=full)

    @router.get("/audit/verify", summary="Whether the journal's hash chain is whole")
    async def verify() -> models.Verification:
        return await records.verification()

    return router


def live_route(feed: LiveFeed, access: Access) -> APIRouter:
    """What happens, while it happens."""
    router = APIRouter(prefix="/v1", tags=["now"], responses=RESPONSES, dependencies=[access.to(Scope.READ)])

    async def start(
        after: NotNegative | None = None,
        last_event_id: Annotated[int | None, Header(ge=0, le=2**53)] = None,
    ) -> int:
        return await feed.start(last_event_id if last_event_id is not None else after)

    # `cursor` is known before the answer begins: what happens once a reader sees the answer's head is in its stream.
    @router.get("/events", response_class=EventSourceResponse, summary="Transitions and progress as they happen")
    async def events(cursor: int = Depends(start)) -> AsyncIterator[ServerSentEvent]:
        try:
            async for happening in feed.follow(cursor):
                number = None if happening.id is None else str(happening.id)
                yield ServerSentEvent(data=happening.data, event=happening.kind, id=number)
        except JournalError as error:
            # The answer has begun: all that can be said is its end, after which readers ask again.
            log.warning("live events end", extra={"reason": str(error)})

    return router
