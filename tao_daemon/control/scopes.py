"""What a token may do. Pure; the one place that says what each scope includes."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    READ = "read"
    """Look at everything, answers to prompts included."""
    OPERATE = "operate"
    """Start and cancel rounds; pause, resume, abort and undo rollouts. Nothing that lets something new serve. Reads."""
    APPROVE = "approve"
    """Approve and promote: lets a candidate serve. Operates and reads."""
    GATEWAY = "gateway"
    """What a gateway needs: the routes, and its own reports. Nothing else."""
    ADMIN = "admin"
    """Everything, tokens included."""


NAME_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"
"""What may name a token."""

_INCLUDES: Final = {
    Scope.READ: {Scope.READ},
    Scope.OPERATE: {Scope.OPERATE, Scope.READ},
    Scope.APPROVE: {Scope.APPROVE, Scope.OPERATE, Scope.READ},
    Scope.GATEWAY: {Scope.GATEWAY},
    Scope.ADMIN: set(Scope),
}


def effective(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """The scopes with all they include."""
    return frozenset(included for scope in scopes for included in _INCLUDES[scope])
