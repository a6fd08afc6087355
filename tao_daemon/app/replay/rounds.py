"""A past round played again from what it left: its scores, what could teach, the gate's verdict, the journal.

Reads `rounds/<id>` and the journal, and the buffer where no daemon has it open; changes nothing, asks no server.
What is compared is named, with the recorded and the replayed value; what cannot be checked says why.
artefacts → checks → do they all hold, and which does not
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from tao_daemon import __version__
from tao_daemon.app.paths import journal_path, rounds_path
from tao_daemon.app.replay.checks import Check, compared, compared_all, unchecked
from tao_daemon.app.replay.journal import check_journal
from tao_daemon.app.replay.scores import Recorded, rescore
from tao_daemon.app.settings import policy_of
from tao_daemon.config import Config
from tao_daemon.daemon.carrying import carried_groups
from tao_daemon.daemon.grading import scoring_signal
from tao_daemon.daemon.replaying import Rules
from tao_daemon.domain.errors import ArchiveError
from tao_daemon.domain.ports import TrainingJob
from tao_daemon.domain.report import Pair, Verdict
from tao_daemon.evaluation.gate import MEASURED, Limits, judge, recorded_limits
from tao_daemon.learning.job import sides
from tao_daemon.learning.job_folders import spec_of
from tao_daemon.registry.round_archive import RoundArchive

_SCORED = ("kept", "dropped", "mean_reward", "mean_reward_plain")


def replay_round(config: Config, number: int) -> dict[str, Any]:
    """`{"round", "matches", "checks": [{"name", "recorded", "replayed", "same"}], "note"}`; blocks, for seconds.

    `matches`: nothing differs, and something could be checked. Raises ArchiveError for a round that left no report or
    whose artefacts are damaged.
    """
    archive = RoundArchive(rounds_path(config))
    report = archive.report(number)
    if not report:
        raise ArchiveError(f"round {number} has no report in {config.daemon.data_dir}; `round list` shows the rounds")
    recorded = _recorded(archive, report, config)
    verdict, gate = _check_gate(recorded, report, config)
    checks = [
        *_check_scoring(recorded, report),
        *asyncio.run(rescore(config, recorded)),
        *_check_training(archive, recorded, report, config),
        *gate,
        *check_journal(
            journal_path(config),
            Rules(policy_of(config), config.digest, __version__),
            report,
            verdict,
        ),
    ]
    return {
        "round": number,
        "matches": all(check.same is not False for check in checks) and any(check.same for check in checks),
        "checks": [asdict(check) for check in checks],
        "note": _note(report, config, checks),
    }


def _recorded(archive: RoundArchive, report: Mapping[str, Any], config: Config) -> Recorded:
    number, scoring = int(report["round"]), _phase(report, "scoring")
    sampled, judged = archive.has_completions(number), archive.has_evaluation(number)
    return Recorded(
        groups=archive.completions(number) if sampled else (),
        scored=archive.scored_groups(number) if sampled and archive.has_scores(number) else (),
        evaluation=archive.evaluation(number) if judged else (),
        min_spread=float(scoring.get("min_spread", config.training.min_spread)),
        sampling_limit=int(scoring.get("sampling_limit", config.sampling.max_tokens)),
    )


def _check_scoring(recorded: Recorded, report: Mapping[str, Any]) -> list[Check]:
    """The phase's figures from the stored rewards."""
    told = _phase(report, "scoring")
    if not told:
        return []
    if gone := _gone(len(recorded.scored), told.get("kept"), "groups"):
        return [unchecked(f"scoring.{name}", told.get(name), gone) for name in _SCORED]
    dropped = len(recorded.groups) - len(recorded.scored)
    found = asdict(scoring_signal(recorded.scored, dropped=dropped, failures=0))
    return compared_all("scoring", told, found, _SCORED)


def _check_training(
    archive: RoundArchive, recorded: Recorded, report: Mapping[str, Any], config: Config
) -> list[Check]:
    """What trained and what was dropped, from the stored rewards: the round's own and what it carried."""
    told = _phase(report, "training")
    names = [n for n in told if n in ("groups", "samples") or n.startswith(("dropped_groups_", "dropped_samples_"))]
    if not names:
        return []
    gone = _gone(len(recorded.scored), _phase(report, "scoring").get("kept"), "groups")
    if gone or told.get("config_digest") != config.digest:
        why = gone or "the limits are those of another configuration"
        return [unchecked(f"training.{name}", told[name], why) for name in names]
    carried = carried_groups(archive, told.get("carried_from", ()), recorded.scored)
    if gone := _gone(len(carried.groups), told.get("carried_groups"), "carried groups"):
        return [unchecked(f"training.{name}", told[name], gone) for name in names]
    groups, number = (*recorded.scored, *carried.groups), int(report["round"])
    spec = spec_of(TrainingJob(number, 1, groups, None, config.round.seed + number), config.training)
    chosen, _ = sides(spec, groups, spec.max_sequence_tokens)
    found: dict[str, float] = {
        "groups": len(chosen.groups),
        "samples": sum(len(group.samples) for group in chosen.groups),
        **{f"dropped_groups_{why}": count for why, count in chosen.dropped_groups.items()},
        **{f"dropped_samples_{why}": count for why, count in chosen.dropped_samples.items()},
    }
    return compared_all("training", told, found, list(dict.fromkeys([*names, *found])))


def _check_gate(recorded: Recorded, report: Mapping[str, Any], config: Config) -> tuple[Verdict | None, list[Check]]:
    """The verdict from the stored pairs, with the limits and the seed it was reached with."""
    told = report.get("verdict")
    if not told:
        return None, []
    numbers = told.get("numbers") or {}
    if gone := _gone(len(recorded.evaluation), numbers.get("pairs"), "pairs"):
        return None, [unchecked("gate.decision", told.get("decision"), gone)]
    limits, seed = _settings(told, report, config)
    pairs = [Pair(**{name: row[name] for name in Pair.__dataclass_fields__}) for row in recorded.evaluation]
    available = max(int(numbers.get("available", len(pairs))), len(pairs))
    measured = {name: numbers[name] for name in MEASURED if name in numbers}
    verdict = judge(pairs, limits, available=available, seed=seed, measured=measured)
    return verdict, [
        compared("gate.decision", told.get("decision"), verdict.decision.value),
        # A verdict of an earlier version may hold fewer numbers.
        *compared_all("gate", numbers, dict(verdict.numbers), list(numbers)),
        # What follows them are remarks on how the scores were got, which no pair tells.
        compared("gate.reasons", "; ".join(told.get("reasons", ())[: len(verdict.reasons)]), verdict.summary),
    ]


def _settings(told: Mapping[str, Any], report: Mapping[str, Any], config: Config) -> tuple[Limits, int]:
    """Those of the verdict; the present ones for a report that does not hold them."""
    settings = told.get("settings") or {}
    try:
        limits = recorded_limits(settings)
    except KeyError:
        limits = recorded_limits(config.gate.model_dump())
    return limits, int(settings.get("seed", config.round.seed + int(report["round"])))


def _gone(found: int, recorded: Any, what: str) -> str:
    """Why figures cannot be found again: rows are missing, as after an erasure. "" when all are there."""
    if not isinstance(recorded, int | float) or found >= recorded:
        return ""
    return f"{found} of {recorded:g} {what} are left, as after an erasure"


def _phase(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = (report.get("phases") or {}).get(name)
    return found if isinstance(found, Mapping) else {}


def _note(report: Mapping[str, Any], config: Config, checks: list[Check]) -> str:
    """What to know when reading the checks."""
    notes = [] if report.get("outcome") else ["the round has not ended"]
    phases = [figures for figures in (report.get("phases") or {}).values() if isinstance(figures, Mapping)]
    if any(figures.get("config_digest") != config.digest for figures in phases):
        notes.append("the round ran under another configuration: scores may differ for that reason alone")
    if versions := sorted({str(f["version"]) for f in phases if f.get("version", __version__) != __version__}):
        notes.append(f"the round ran under version {', '.join(versions)}, this is {__version__}")
    if (drew := _phase(report, "evaluating").get("numpy", np.__version__)) != np.__version__:
        notes.append(f"the gate's resamples were drawn by numpy {drew}, this is {np.__version__}: bounds may differ")
    differing = [check.name for check in checks if check.same is False]
    if differing:
        notes.append(f"not the same: {', '.join(differing)}")
    open_checks = sum(check.same is None for check in checks)
    if open_checks:
        notes.append(f"{open_checks} of {len(checks)} could not be checked")
    return "; ".join(notes) or f"all {len(checks)} checks give what was recorded"
