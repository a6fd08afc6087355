"""Errors of the control API, all in one shape: code, message, remedy."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Route

from tao_daemon.control import models
from tao_daemon.control.tokens import TokenError
from tao_daemon.daemon.supervisor import KeyReused
from tao_daemon.domain.errors import TaoError

RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": models.Error, "description": text}
    for status, text in {
        400: "The body cannot be read",
        401: "No valid token",
        403: "The token lacks the scope",
        404: "There is no such thing",
        422: "The request is not valid",
        503: "The daemon cannot say or do it now",
    }.items()
}
"""What every guarded route may answer besides its own."""


class ApiProblem(Exception):
    """Ends a request with an error in the documented shape."""

    def __init__(self, status: int, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = _body(code, message, remedy)


def not_found(message: str, remedy: str = "") -> ApiProblem:
    return ApiProblem(404, "not_found", message, remedy)


def install(app: FastAPI) -> None:
    """Answer every error in the one shape, also those of the framework."""
    app.add_exception_handler(ApiProblem, _problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(TokenError, _token)
    app.add_exception_handler(KeyReused, _key_reused)
    app.add_exception_handler(TaoError, _unable)
    app.add_exception_handler(TimeoutError, _late)


def _body(code: str, message: str, remedy: str) -> dict[str, Any]:
    return models.Error(error=models.Problem(code=code, message=message, remedy=remedy)).model_dump()


async def _problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiProblem)
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return JSONResponse(error.body, error.status, headers)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    remedy = "GET /openapi.json lists every route" if error.status_code in (404, 405) else ""
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else None
    return JSONResponse(_body(code, str(error.detail), remedy), error.status_code, headers)


def _allowed(request: Request) -> str:
    """The methods of every route with this path; the framework names those of the first."""
    methods: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route | APIRoute) and route.path_regex.match(request.url.path):
            methods |= route.methods or set()
    return ", ".join(sorted(methods))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Where and why, never what was sent."""
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in error.errors()]
    return JSONResponse(_body("invalid", "; ".join(problems), "GET /openapi.json has the types"), 422)


async def _token(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse(_body("conflict", str(error), "GET /v1/tokens lists them"), 409)


async def _key_reused(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse(_body("idempotency_key_reused", str(error), ""), 422)


async def _unable(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse(_body("unavailable", str(error), "try again; the daemon's log has more"), 503)


async def _late(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse(
        _body("timeout", "the daemon did not act in time", "see its log; undo works with it stopped"), 503
    )


def bug() -> JSONResponse:
    """The answer when nobody foresaw what went wrong."""
    return JSONResponse(_body("internal", "the daemon has a bug", "please report it with the daemon's log"), 500)
