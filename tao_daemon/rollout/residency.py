"""What to load on and unload from one server, so that it has what it should. Pure.

An adapter of ours is listed under its own name, from its own directory in our store: nothing else is ever
unloaded, be it someone else's adapter or an alias that was delivered in place.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """It is missing."""

    name: str


@dataclass(frozen=True, slots=True)
class Reload:
    """It is listed, but from another path."""

    name: str
    path: str
    """Where the server has it from."""


@dataclass(frozen=True, slots=True)
class Unload:
    """It is ours, nobody wants it, and no request is on it."""

    name: str


Action = Load | Reload | Unload


def plan(
    desired: Sequence[str], loaded: Mapping[str, str], home: str, drained: Callable[[str], bool]
) -> tuple[Action, ...]:
    """Loads in the order of `desired` (most important first), then unloads by name.

    `loaded` maps the names that the server lists to the paths it loaded from; `home` is our store, both as the
    server sees them. `drained` is asked only about adapters that could be unloaded.
    """
    home = posixpath.normpath(home)
    actions: list[Action] = []
    for name in dict.fromkeys(desired):
        if name not in loaded:
            actions.append(Load(name))
        elif _split(loaded[name]) != (home, name):
            actions.append(Reload(name, loaded[name]))
    ours = [name for name, path in loaded.items() if _split(path) == (home, name)]
    surplus = sorted(name for name in ours if name not in desired)
    actions += [Unload(name) for name in surplus if drained(name)]
    return tuple(actions)


def in_use(loaded: Mapping[str, str], home: str) -> frozenset[str]:
    """The names that a server lists, and the directories of `home` that it loaded from, under whatever name."""
    paths = [_split(path) for path in loaded.values()]
    return frozenset(loaded) | {name for parent, name in paths if parent == posixpath.normpath(home)}


def _split(path: str) -> tuple[str, str]:
    return posixpath.split(posixpath.normpath(path))
