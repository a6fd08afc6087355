"""What a replay compares: a recorded value and the one that was found again. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Value = float | str | None


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    recorded: Value
    replayed: Value
    """What came out this time, or why nothing did."""
    same: bool | None
    """None where it could not be checked."""


def compared(name: str, recorded: Value, replayed: Value) -> Check:
    """Numbers are the same up to rounding in the last digits, words when they are equal."""
    if isinstance(recorded, int | float) and isinstance(replayed, int | float):
        return Check(name, recorded, replayed, math.isclose(recorded, replayed, rel_tol=1e-9, abs_tol=1e-12))
    return Check(name, recorded, replayed, recorded == replayed)


def compared_all(
    prefix: str, recorded: Mapping[str, Value], replayed: Mapping[str, Value], names: Sequence[str] | None = None
) -> list[Check]:
    """One check per name: those given, or those of either side."""
    wanted = names if names is not None else tuple(dict.fromkeys([*recorded, *replayed]))
    return [compared(f"{prefix}.{name}", recorded.get(name), replayed.get(name)) for name in wanted]


def unchecked(name: str, recorded: Value, why: str) -> Check:
    return Check(name, recorded, f"not checked: {why}", None)
