"""No token, no route: the scope that each route demands, enforced and documented at once."""

from __future__ import annotations

from typing import Annotated

from fastapi import Request, Security
from fastapi.params import Security as Demand
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tao_daemon.control.auth import Authenticator, Identity
from tao_daemon.control.problems import ApiProblem
from tao_daemon.control.scopes import Scope

_BEARER = HTTPBearer(
    scheme_name="token",
    description="data_dir/control.token, or one of `tao-daemon token create`",
    auto_error=False,
)


class Access:
    """Makes the demand that a route puts first."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def to(self, *scopes: Scope) -> Demand:
        """A token with any one of these scopes; with none named, any valid token."""

        async def check(
            request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
        ) -> None:
            identity = self._authenticator.identify(request.headers.get("Authorization"))
            if identity is None:
                raise ApiProblem(
                    401,
                    "unauthorized",
                    "this route needs a valid token",
                    "send `Authorization: Bearer TOKEN`: data_dir/control.token, or one of `tao-daemon token create`",
                )
            if scopes:
                demand(identity, *scopes)
            request.state.identity = identity

        return Security(check, scopes=[scope.value for scope in scopes])  # type: ignore[no-any-return]


def demand(identity: Identity, *scopes: Scope) -> None:
    """Raises ApiProblem 403 unless the token has any one of these scopes."""
    if not identity.scopes.intersection(scopes):
        raise ApiProblem(
            403,
            "forbidden",
            f"this needs scope {' or '.join(scopes)}; the token of {identity.name} has "
            f"{', '.join(sorted(identity.scopes))}",
            f"ask an administrator for `tao-daemon token create NAME --scope {scopes[0]}`",
        )


def identity_of(request: Request) -> Identity:
    """Who sent a request that passed `Access.to`."""
    identity = request.state.identity
    assert isinstance(identity, Identity)
    return identity
