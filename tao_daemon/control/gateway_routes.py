"""What gateways ask and tell: the routes, by long poll, and their counters, under a lease."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from tao_daemon.control import models
from tao_daemon.control.access import Access, demand, identity_of
from tao_daemon.control.problems import RESPONSES
from tao_daemon.control.scopes import Scope
from tao_daemon.control.service import Service

_MAX_WAIT_SECONDS = 60.0

GatewayName = Annotated[str, Path(min_length=1, max_length=200)]


def gateway_routes(service: Service, access: Access) -> APIRouter:
    """Counters may end a rollout, so only who holds a gateway's token reports."""
    router = APIRouter(prefix="/v1", tags=["gateways"], responses=RESPONSES)
    reports = [access.to(Scope.GATEWAY)]

    @router.get(
        "/routes",
        response_model=dict[str, Any],
        responses={204: {"description": "Nothing newer within `wait`"}},
        dependencies=[access.to(Scope.READ, Scope.GATEWAY)],
        summary="Routes newer than generation `after`, as soon as there are any; naming a `gateway` needs its scope",
    )
    async def routes(
        request: Request,
        after: Annotated[int, Query(ge=-1, le=2**53)] = -1,
        wait: Annotated[float, Query(ge=0, le=_MAX_WAIT_SECONDS, allow_inf_nan=False)] = 0.0,
        gateway: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    ) -> Any:
        if gateway:
            # Whoever polls as a gateway is waited for, before anything is unloaded.
            demand(identity_of(request), Scope.GATEWAY)
            service.traffic.hear_poll(gateway, after, wait)
        found = await service.board.newer_than(after, wait)
        return found.to_json() if found else Response(status_code=204)

    @router.put("/gateways/{id}", status_code=204, dependencies=reports, summary="A gateway's cumulative counters")
    async def report(id: GatewayName, report: models.Report) -> None:
        service.reported(report.of(id))

    @router.delete("/gateways/{id}", status_code=204, dependencies=reports, summary="A gateway ends")
    async def leave(id: GatewayName) -> None:
        service.traffic.leave(id)

    return router
