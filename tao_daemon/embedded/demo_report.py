"""What the demo says about a promoted adapter: the gate's own numbers, examples, and where the time went.

Pure. A report is a plain JSON value, the same that `--report FILE` writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tao_daemon.embedded.producer import LiveAnswer
from tao_daemon.embedded.traffic import Ticket

EXAMPLES: Final = 3
_PHASES = ("claiming", "sampling", "scoring", "training", "evaluating")
_PARTS = {
    "install": "installing the packages",
    "model": "making the model folder",
    "broker": "starting the broker",
    "vllm_start": "starting vLLM",
    "daemon_start": "starting daemon and gateway",
    "traffic_wait": "waiting for enough traffic",
    "claiming": "claiming prompts",
    "sampling": "sampling completions",
    "scoring": "scoring them",
    "training": "training the adapter",
    "evaluating": "evaluating on held-out prompts",
    "rollout": "shadow, canary and baking",
}


@dataclass(frozen=True, slots=True)
class Promotion:
    """Everything that is known when an adapter has been promoted."""

    round_report: Mapping[str, Any]
    """`report.json` of the accepted round."""
    rollout: Mapping[str, Any]
    """Its history, as in GET /v1/rollouts."""
    earlier_reports: Sequence[Mapping[str, Any]]
    evaluation: Sequence[Mapping[str, Any]]
    """Rows of the round's `evaluation.parquet`."""
    texts: Mapping[str, str]
    """Ticket text by prompt id."""
    seconds: Mapping[str, float]
    """Parts that the demo measured itself."""
    buffer: Mapping[str, Any]
    """Counts of the buffer, as in /v1/status."""
    live_requests: int
    live_errors: int
    last_answer: LiveAnswer | None
    """The gateway's answer after the swap."""
    gateway: str
    """Base URL."""


def build_report(promotion: Promotion) -> dict[str, Any]:
    """The report as a JSON value. Scores are means over held-out prompts, intervals 95 % bootstrap percentiles."""
    verdict = promotion.round_report["verdict"]
    numbers = verdict["numbers"]
    rows = promotion.evaluation
    reports = (*promotion.earlier_reports, promotion.round_report)
    return {
        "adapter": promotion.round_report["candidate"],
        "before": promotion.round_report.get("incumbent") or "base model",
        "base_score": numbers["incumbent_score"],
        "base_ci95": [numbers["incumbent_score_low"], numbers["incumbent_score_high"]],
        "adapter_score": numbers["candidate_score"],
        "adapter_ci95": [numbers["candidate_score_low"], numbers["candidate_score_high"]],
        "difference": numbers["difference"],
        "difference_ci95": [numbers["difference_low"], numbers["difference_high"]],
        "base_valid": _share_valid(rows, "incumbent_score"),
        "adapter_valid": _share_valid(rows, "candidate_score"),
        "held_out_prompts": len(rows),
        "verdict": list(verdict["reasons"]),
        "rollout": [
            {"phase": step["phase"], "fraction": step["fraction"], "at": step["at"], "note": step["note"]}
            for step in promotion.rollout["steps"]
        ],
        "rounds": len(reports),
        "round_outcomes": [
            {"round": r["round"], "decision": r.get("verdict", {}).get("decision", "failed")} for r in reports
        ],
        "prompts": len(promotion.texts),
        "buffer": dict(promotion.buffer),
        "live_requests": promotion.live_requests,
        "live_errors": promotion.live_errors,
        "seconds": _seconds(promotion.seconds, reports),
        "examples": _examples(rows, promotion.texts),
        "asked_after_swap": asdict(promotion.last_answer) if promotion.last_answer else None,
        "ask": curl(promotion.gateway, next(iter(promotion.texts.values()), "Where is my parcel?")),
    }


def curl(gateway: str, ticket: str) -> str:
    """The line that asks the public model about a ticket, for a POSIX shell."""
    body = json.dumps(Ticket(ticket, "", "", "").request, ensure_ascii=False)
    quoted = body.replace("'", "'\\''")
    return f"curl -s {gateway}/v1/chat/completions -H 'content-type: application/json' -d '{quoted}'"


def report_lines(report: Mapping[str, Any], *, keeps_running: bool) -> list[str]:
    """The report as text for a person."""
    before = report["before"]
    lines = [
        f"{report['adapter']} was promoted and has settled: it answers under the public name now.",
        "",
        f"On {report['held_out_prompts']} held-out tickets, none of which it was trained on (score: how far the answer",
        "meets the JSON schema, 0 to 1; 95 % confidence intervals):",
        f"  before ({before}): {_score(report['base_score'], report['base_ci95'])}, "
        f"{report['base_valid']:.0%} of the answers fully valid",
        f"  after (adapter): {_score(report['adapter_score'], report['adapter_ci95'])}, "
        f"{report['adapter_valid']:.0%} of the answers fully valid",
        f"  difference: {_score(report['difference'], report['difference_ci95'], '+')}",
        f"  the gate: {report['verdict'][-1]}",
        "The schema checks the form, and nobody labelled the tickets: what was learned is the form, not which category",
        "is right. What the scorers check is what gets better.",
        "",
        "How it was rolled out:",
        *(f"  {_step(step)}" for step in report["rollout"]),
        "",
        "Three of them, answered by both:",
    ]
    for example in report["examples"]:
        lines += [
            f"  ticket  {example['ticket']}",
            f"  before  {_one_line(example['before'])}",
            f"  after   {_one_line(example['after'])}",
            "",
        ]
    lines += _facts(report)
    if keeps_running:
        lines += ["", "Ask the improved model (the demo runs on until Ctrl-C):", f"  {report['ask']}"]
    else:
        lines += ["", "To ask it yourself, run the demo without --once, and then:", f"  {report['ask']}"]
    return lines


def _facts(report: Mapping[str, Any]) -> list[str]:
    seconds = report["seconds"]
    parts = [f"  {_PARTS.get(name, name):<32}{value:7.1f} s" for name, value in seconds.items() if name != "total"]
    rounds = _count(report["rounds"], "round")
    return [
        f"{report['prompts']} tickets came in over Kafka; {rounds}; meanwhile {report['live_requests']} live questions "
        f"through the gateway, {_count(report['live_errors'], 'error')}.",
        "Where the time went:",
        *parts,
        f"  {'in all':<32}{seconds['total']:7.1f} s",
    ]


def _step(step: Mapping[str, Any]) -> str:
    name = f"canary {step['fraction']:.0%}" if step["phase"] == "canary" else step["phase"]
    return f"{name:<12} {step['note'].split('; ')[0]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _seconds(measured: Mapping[str, float], reports: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Parts in the order they happen; the phases are summed over all rounds."""
    phases = {
        name: math.fsum(report.get("phases", {}).get(name, {}).get("seconds", 0.0) for report in reports)
        for name in _PHASES
    }
    known = {**measured, **phases}
    ordered = [*_PARTS, *(name for name in known if name not in _PARTS)]
    return {name: round(known[name], 1) for name in ordered if name in known}


def _share_valid(rows: Sequence[Mapping[str, Any]], column: str) -> float:
    return sum(row[column] >= 1.0 for row in rows) / len(rows) if rows else 0.0


def _examples(rows: Sequence[Mapping[str, Any]], texts: Mapping[str, str]) -> list[dict[str, Any]]:
    """The first few tickets of the gate in its own order: not chosen by how well they went."""
    known = [row for row in rows if row["prompt_id"] in texts]
    return [
        {
            "ticket": texts[row["prompt_id"]],
            "before": row["incumbent_text"],
            "before_score": row["incumbent_score"],
            "after": row["candidate_text"],
            "after_score": row["candidate_score"],
        }
        for row in known[:EXAMPLES]
    ]


def _score(value: float, interval: Sequence[float], sign: str = "") -> str:
    low, high = interval
    return f"{value:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "(nothing)"
