"""The routes that change something. `operate` stops and takes back; `approve` lets something new serve."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.params import Security as Demand
from fastapi.responses import JSONResponse

from tao_daemon.control import models
from tao_daemon.control.access import Access, identity_of
from tao_daemon.control.problems import RESPONSES
from tao_daemon.control.scopes import Scope
from tao_daemon.control.service import Service
from tao_daemon.domain.events import (
    NO_REASON,
    Event,
    RolloutAborted,
    RolloutApproved,
    RolloutPaused,
    RolloutPromoted,
    RolloutResumed,
    RoundCancelRequested,
    RoundRequested,
    UndoRequested,
)
from tao_daemon.registry.journal import RequestKey

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same request again under the same key is answered as before, and nothing is done.",
    ),
]
_ANSWERS: dict[int | str, dict[str, Any]] = {
    **RESPONSES,
    409: {"model": models.Done, "description": "Refused; nothing changed"},
}
_TOKEN_ANSWERS: dict[int | str, dict[str, Any]] = {
    **RESPONSES,
    409: {"model": models.Error, "description": "The name is taken, or there is no such token"},
}


def change_routes(service: Service, access: Access) -> APIRouter:
    """The verbs of rounds and rollouts."""
    router = APIRouter(prefix="/v1", tags=["verbs"], responses=_ANSWERS)
    operate, approve = [access.to(Scope.OPERATE)], [access.to(Scope.APPROVE)]

    async def act(request: Request, asked: models.Asked, key: str | None, event: Event) -> Response:
        generation = asked.expected_generation if isinstance(asked, models.AskedMove) else None
        done = await service.submit(event, generation, _request_key(key, request, asked))
        return JSONResponse(done.model_dump(), 409 if done.refused else 200)

    def actor(request: Request, asked: models.Asked) -> str:
        return identity_of(request).actor(asked.actor)

    @router.post("/rounds", response_model=models.Done, dependencies=operate, summary="Start a round")
    async def start_round(request: Request, asked: models.Asked, key: Key = None) -> Response:
        return await act(request, asked, key, RoundRequested(asked.reason, actor(request, asked)))

    @router.post("/rounds/cancel", response_model=models.Done, dependencies=operate, summary="Cancel the running round")
    async def cancel_round(request: Request, asked: models.Asked, key: Key = None) -> Response:
        return await act(request, asked, key, RoundCancelRequested(actor(request, asked), asked.reason))

    @router.post("/rollout/promote", response_model=models.Done, dependencies=approve, summary="Skip a step")
    async def promote(request: Request, asked: models.AskedPromotion, key: Key = None) -> Response:
        slow = service.traffic.slow_seconds()
        return await act(request, asked, key, RolloutPromoted(actor(request, asked), asked.reason, asked.full, slow))

    def move(verb: str, made: Callable[[str, str], Event], demand: list[Demand], summary: str) -> None:
        @router.post(
            f"/rollout/{verb}", response_model=models.Done, dependencies=demand, summary=summary, name=f"{verb}_rollout"
        )
        async def ask(request: Request, asked: models.AskedMove, key: Key = None) -> Response:
            return await act(request, asked, key, made(actor(request, asked), asked.reason))

    move("approve", RolloutApproved, approve, "Let it serve")
    move("abort", RolloutAborted, operate, "End the open rollout")
    move("pause", RolloutPaused, operate, "Hold the open rollout")
    move("resume", RolloutResumed, operate, "Let it move again")

    @router.post("/rollout/undo", response_model=models.Done, dependencies=operate, summary="Serve what was before")
    async def undo(request: Request, asked: models.AskedUndo, key: Key = None) -> Response:
        return await act(request, asked, key, UndoRequested(actor(request, asked), asked.reason, asked.to))

    return router


def token_routes(service: Service, access: Access) -> APIRouter:
    """Named tokens with scopes."""
    router = APIRouter(
        prefix="/v1/tokens", tags=["tokens"], responses=_TOKEN_ANSWERS, dependencies=[access.to(Scope.ADMIN)]
    )

    @router.get("", summary="Every token there was, without secrets")
    async def tokens() -> models.Tokens:
        return models.Tokens(tokens=[models.Token(**token.to_json()) for token in service.tokens.list()])

    @router.post("", status_code=201, summary="Issue a token; its secret is shown this once")
    async def issue(request: Request, asked: models.AskedToken) -> models.NewToken:
        return await service.issue_token(asked, identity_of(request).actor(asked.actor))

    @router.delete("/{id}", summary="Revoke a token at once")
    async def revoke(
        request: Request,
        id: Annotated[str, Path(max_length=64)],
        actor: Annotated[models.Name | None, Query()] = None,
        reason: Annotated[models.Reason, Query()] = NO_REASON,
    ) -> models.Done:
        return await service.revoke_token(id, identity_of(request).actor(actor), reason)

    return router


def _request_key(key: str | None, request: Request, asked: models.Asked) -> RequestKey | None:
    """Keys belong to who sends them; the digest is of everything that was asked."""
    if key is None:
        return None
    body = json.dumps([request.url.path, asked.model_dump()], sort_keys=True)
    return RequestKey(f"{identity_of(request).name}:{key}", hashlib.sha256(body.encode()).hexdigest())
