"""What the journal says of a round against what its artefacts say, and the journal against itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tao_daemon.app.replay.checks import Check, compared, unchecked
from tao_daemon.daemon.replaying import JournalReplay, Rules, replay
from tao_daemon.domain.errors import JournalError
from tao_daemon.domain.report import Verdict
from tao_daemon.registry.chain import check
from tao_daemon.registry.journal import Entry
from tao_daemon.registry.journal_reader import ReadOnlyJournal

_SUMMARY = ("outcome", "reason", "candidate")


def check_journal(path: Path, rules: Rules, report: Mapping[str, Any], verdict: Verdict | None) -> list[Check]:
    """Chain, replay, and the round's decision and end. `verdict` is the replayed one, None where there is none."""
    if not path.exists():
        return [unchecked("journal.chain", "a whole chain", f"there is no journal at {path}")]
    journal = ReadOnlyJournal(path)
    head, problem = check(journal.rows())
    if problem is not None:
        return [Check("journal.chain", "a whole chain", problem, False)]
    chain = Check("journal.chain", "a whole chain", f"{head.seq} entries, each follows the one before", True)
    traces = _Traces(int(report["round"]))
    try:
        replayed = _check_replay(replay(traces.noting(journal.entries()), rules))
    except JournalError as error:
        return [chain, unchecked("journal.replay", f"{head.seq} entries", str(error))]
    return [chain, replayed, *_check_decision(traces, report, verdict), *_check_end(traces, report)]


@dataclass(slots=True)
class _Traces:
    """What the journal says of one round."""

    number: int
    judged: Mapping[str, Any] | None = None
    """The verdict that counted: one of an attempt that was over moves nothing."""
    ended: Mapping[str, Any] | None = None

    def noting(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            last = entry.state_after.get("last_round")
            if last and last.get("id") == self.number and self.ended is None:
                self.ended = last
                self.judged = entry.event if entry.event.get("type") == "CandidateJudged" else None
            yield entry


def _check_replay(found: JournalReplay) -> Check:
    recorded = f"{found.entries} entries"
    if not found.deviations:
        return compared("journal.replay", recorded, f"{found.reproduced} entries")
    told = [each for each in found.deviations if not each.other_rules] or found.deviations
    first = f"entry {told[0].seq} ({told[0].event}) differs in {', '.join(told[0].parts)}"
    if found.unexplained:
        return Check("journal.replay", recorded, f"{found.reproduced} entries; {first}", False)
    why = "made under another configuration or version"
    return Check("journal.replay", recorded, f"{found.reproduced} entries; {first}, {why}", None)


def _check_decision(traces: _Traces, report: Mapping[str, Any], verdict: Verdict | None) -> list[Check]:
    """The journaled verdict against the replayed one, or against the report's where that cannot be replayed."""
    told = report.get("verdict") or {}
    if traces.judged is None:
        return []
    decision = verdict.decision.value if verdict else told.get("decision")
    # What follows the reasons are remarks on how the scores were got, which no pair tells: as the report has them.
    recorded = told.get("reasons", ())
    reasons = [*verdict.reasons, *recorded[len(verdict.reasons) :]] if verdict else recorded
    return [
        compared("journal.decision", traces.judged.get("decision"), decision),
        compared("journal.decision_reason", traces.judged.get("reason"), "; ".join(reasons)),
    ]


def _check_end(traces: _Traces, report: Mapping[str, Any]) -> list[Check]:
    """How the journal says that the round ended against how its report says it did."""
    if not report.get("outcome"):
        return []
    told = {"outcome": report["outcome"], "reason": report.get("outcome_reason"), "candidate": report.get("candidate")}
    if traces.ended is None:
        return [Check("journal.outcome", None, str(told["outcome"]), False)]
    return [compared(f"journal.{name}", traces.ended.get(name), told[name]) for name in _SUMMARY]
