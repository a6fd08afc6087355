"""Scored groups of refused rounds that train once more: the incumbent that sampled them still serves.

Sampling and scoring cost most of a round. What a round sampled stays a sample of the incumbent until another adapter
serves, so that one the gate refused is not lost: with the next round's groups it makes a larger batch.

reports, newest first → refused under the same incumbent and the same scoring → their groups, less what was scored anew
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tao_daemon.domain.completion import ScoredGroup
from tao_daemon.domain.errors import ArchiveError
from tao_daemon.domain.round import Outcome
from tao_daemon.registry.round_archive import RoundArchive

log = logging.getLogger(__name__)

_REFUSED = (Outcome.REJECTED, Outcome.INCONCLUSIVE)
"""A cancelled one was cancelled for a reason."""
_LOOKED_AT = 64
"""Latest reports that are read."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What earlier rounds add to a training, and which rounds those are, the newest first."""

    rounds: tuple[int, ...] = ()
    groups: tuple[ScoredGroup, ...] = ()


def rounds_to_carry(archive: RoundArchive, number: int, *, most: int) -> tuple[int, ...]:
    """At most `most` rounds before this one whose groups may train again, the newest first.

    Raises ArchiveError where the round's own report is damaged.
    """
    own = archive.report(number)
    found: list[int] = []
    for report in reversed(archive.reports(before=number, limit=_LOOKED_AT)):
        if len(found) == most or _ends_the_search(report, own):
            break
        if _fits(report, own) and archive.has_scores(report["round"]):
            found.append(report["round"])
    return tuple(found)


def carried_groups(archive: RoundArchive, rounds: Iterable[int], own: Sequence[ScoredGroup]) -> Carried:
    """The groups of these rounds, the newest of each prompt, less prompts of `own`. A damaged round is left out, and
    what a scorer had a part in that scored nothing of `own`: it may be trusted no more."""
    seen = {scored.group.prompt_id for scored in own}
    trusted = {name for scored in own for name in scored.scorers}
    numbers: list[int] = []
    groups: list[ScoredGroup] = []
    for number in rounds:
        fitting = [scored for scored in _groups(archive, number) if trusted.issuperset(scored.scorers)]
        more = [scored for scored in fitting if scored.group.prompt_id not in seen]
        seen |= {scored.group.prompt_id for scored in more}
        groups += more
        numbers += [number] * bool(more)
    return Carried(tuple(numbers), tuple(groups))


def carried_prompts(archive: RoundArchive, number: int) -> tuple[str, ...]:
    """What a round's training carried, by its report. Raises ArchiveError where that is damaged."""
    training = archive.report(number).get("phases", {}).get("training", {})
    carried = carried_groups(archive, training.get("carried_from", ()), _groups(archive, number))
    return tuple(scored.group.prompt_id for scored in carried.groups)


def _groups(archive: RoundArchive, number: int) -> list[ScoredGroup]:
    try:
        return archive.scored_groups(number)
    except ArchiveError as error:
        log.warning("a round's groups cannot be read", extra={"round": number, "reason": str(error)})
        return []


def _ends_the_search(report: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Beyond it nothing fits: another incumbent served, or came and was taken back; or a training failed, perhaps for
    what it carried, which must not make the next one fail too."""
    if "problem" in report:
        return False
    outcome = report.get("outcome")
    failed = outcome == Outcome.FAILED and "scoring" in report.get("phases", {})
    return report.get("incumbent") != own.get("incumbent") or outcome == Outcome.ACCEPTED or failed


def _fits(report: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    return report.get("outcome") in _REFUSED and _scoring(report) == _scoring(own)


def _scoring(report: Mapping[str, Any]) -> tuple[Any, Any]:
    """By which version and configuration the rewards are: others may mean something else by them."""
    found = report.get("phases", {}).get("scoring", {})
    return found.get("version"), found.get("config_digest")
