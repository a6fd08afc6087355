"""Can a server do what serving adapters needs? From what it is, before anything is loaded. Pure.

A refusal says that it would go wrong: by an error, or, worse, in silence. A caution says what could not be told.
Every problem names the fact and the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

SLOTS = 4
"""Adapters that are resident at once: the incumbent, the previous one, a canary, and one under evaluation."""
OLDEST = (0, 31)
"""Up to 0.30 vLLM's prefix cache tells adapters apart by name only, and an adapter may take the base model's name."""
NEWEST_TESTED = (0, 32)
IN_PLACE = (0, 33)
"""Up to 0.32 the in-place flag sticks to the adapter: it is read from disk again at every step."""

_VERSION = re.compile(r"v?(\d+)\.(\d+)(.*)")


class Delivery(StrEnum):
    """How an adapter reaches those who ask."""

    ROUTES = "routes"
    """Each version under its own name; a gateway resolves the public one."""
    IN_PLACE = "in_place"
    """Each version replaces the one before it under an alias of the server's own."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one server process is. None, or an empty version: it does not say."""

    version: str
    base_models: tuple[str, ...]
    runtime_updates: bool
    """The routes that load and unload adapters exist."""
    lora_enabled: bool | None
    lora_slots: int | None
    """--max-loras."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What is asked of a server."""

    base_model: str
    slots: int = SLOTS
    delivery: Delivery = Delivery.ROUTES


@dataclass(frozen=True, slots=True)
class Refusal:
    """It would go wrong."""

    fact: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.fact}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Caution:
    """It may go wrong, or cannot be told."""

    fact: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.fact}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Findings:
    refusals: tuple[Refusal, ...] = ()
    cautions: tuple[Caution, ...] = ()


def examine(facts: Facts, needs: Needs) -> Findings:
    """Every problem at once, so that one restart of the server ends them all."""
    found = (*_version_problems(facts.version, needs.delivery), *_lora_problems(facts, needs), *_name(facts, needs))
    return Findings(
        tuple(problem for problem in found if isinstance(problem, Refusal)),
        tuple(problem for problem in found if isinstance(problem, Caution)),
    )


def _version_problems(version: str, delivery: Delivery) -> Iterator[Refusal | Caution]:
    known = _parse(version)
    if delivery is Delivery.IN_PLACE and (known is None or known < IN_PLACE):
        yield Refusal(
            f"vLLM {version or 'of an unknown version'} is not known to deliver adapters in place: up to 0.32 it "
            "reads them from disk again at every step",
            f"run vLLM {_text(IN_PLACE)} or newer, or serve through `tao-daemon gateway`",
        )
    if known is None:
        yield Caution(
            f"its version is {version!r}" if version else "it does not tell its version",
            f"run a release from {_text(OLDEST)} on; {_text(NEWEST_TESTED)} is the newest tested",
        )
    elif known < OLDEST:
        yield Refusal(
            f"vLLM {version} tells adapters apart in its prefix cache by their names only, and lets an adapter "
            "take the base model's name",
            f"run vLLM {_text(OLDEST)} or newer",
        )
    elif known > NEWEST_TESTED:
        yield Caution(
            f"vLLM {version} is newer than the newest tested, {_text(NEWEST_TESTED)}",
            "what it truly serves is measured all the same; try an undo before you rely on it",
        )


def _lora_problems(facts: Facts, needs: Needs) -> Iterator[Refusal | Caution]:
    slots_flag = f"start it with --max-loras {needs.slots} and --max-cpu-loras {2 * needs.slots}"
    if not facts.runtime_updates:
        yield Refusal(
            "it has no route that loads adapters at runtime",
            "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True (and --api-server-count 1)",
        )
    if facts.lora_enabled is False:
        yield Refusal("LoRA is not enabled", f"start it with --enable-lora; {slots_flag}")
    elif facts.lora_slots is None:
        yield Caution(
            "it does not say how many adapters it can hold (vllm:lora_requests_info in /metrics)",
            f"{slots_flag}, and without --disable-log-stats",
        )
    elif facts.lora_slots < needs.slots:
        yield Refusal(
            f"it holds {facts.lora_slots} adapters at once (--max-loras), and {needs.slots} are needed: the "
            "incumbent, the previous one, a canary, and one under evaluation; it would evict in silence",
            slots_flag,
        )


def _name(facts: Facts, needs: Needs) -> Iterator[Refusal]:
    if needs.base_model not in facts.base_models:
        yield Refusal(
            f"it serves {', '.join(facts.base_models) or 'no model'}, not {needs.base_model!r}",
            "set serving.base_model to its --served-model-name, or the other way round",
        )


def _parse(version: str) -> tuple[int, int] | None:
    """Major and minor; None for what is no release: a build from source may call itself 0.1.dev1."""
    found = _VERSION.fullmatch(version.strip())
    if found is None or re.search(r"dev|rc|[ab]\d", found[3].partition("+")[0]):
        return None
    return int(found[1]), int(found[2])


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
