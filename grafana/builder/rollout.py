"""Rollout and gateway: the evidence for and against a candidate, and what clients get from each version."""

from __future__ import annotations

from typing import Any

from grafana.builder.layout import build
from grafana.builder.overview import FAILED, RATE, mean, phase, quantile
from grafana.builder.panels import BLUE, GREEN, GREY, PURPLE, RED, YELLOW, Query, Row, S, lines, number, otherwise, rows

PHASES = {"staged": GREY, "shadow": PURPLE, "canary": YELLOW, "baking": GREEN}
KINDS = {"base": GREY, "adapter": GREEN, "previous": BLUE, "candidate": YELLOW, "none": RED}


def rollout() -> dict[str, Any]:
    return build(
        "tao-rollout",
        "tao-daemon: rollout and gateway",
        "The evidence for and against a candidate, and what clients get from each version.",
        [_present(), _evidence(), _gateway(), _delivery()],
    )


def _present() -> Row:
    holding = f"max by (reason) (tao_rollout_holding{{{S}}})"
    none = otherwise(f"sum(tao_rollout_holding{{{S}}}) == 0", "reason", "no rollout")
    adapters = f"max by (adapter, previous, candidate) (tao_rollout_incumbent_info{{{S}}})"
    for label, text in (("adapter", "base model"), ("previous", "base model or none"), ("candidate", "none")):
        adapters = otherwise(adapters, label, text)
    return Row(
        "The rollout",
        [
            number("Phase", "Of the open rollout.", "none", phase("tao_rollout_phase", "none"), named=True, width=3),
            number(
                "Why it does not move",
                "approval: a person is waited for. evidence: traffic is. no_gateway: nobody reports.",
                "none",
                Query(f"{holding} == 1 or on() {none}", "{{reason}}", instant=True),
                named=True,
                width=4,
            ),
            number(
                "Candidate's share",
                "Of conversations. 0 in baking: the candidate is the incumbent then.",
                "percentunit",
                Query(f"max(tao_rollout_traffic_fraction_ratio{{{S}}})", "share"),
                decimals=0,
                width=3,
            ),
            rows(
                "Adapters in the routes",
                "What serves, what served before, and what is being tried.",
                Query(adapters, "", instant=True),
                {"adapter": "serves", "previous": "before", "candidate": "candidate"},
                width=14,
                height=4,
            ),
            lines(
                "Phases over time",
                "1 for the phase that the open rollout is in.",
                "none",
                Query(f"max by (phase) (tao_rollout_phase{{{S}}})", "{{phase}}"),
                stacked=True,
                steps=True,
                high=1,
                decimals=0,
                colors=PHASES,
            ),
            lines(
                "Candidate's share over time",
                "Of conversations: as the daemon publishes it, and as each gateway has it.",
                "percentunit",
                Query(f"max(tao_rollout_traffic_fraction_ratio{{{S}}})", "published"),
                Query(f"tao_gateway_candidate_fraction_ratio{{{S}}}", "{{instance}}"),
                steps=True,
                high=1,
                decimals=0,
            ),
            lines(
                "Rollouts ended",
                "Since the daemon started. `tao-daemon rollout history` says why.",
                "none",
                Query(f"sum by (phase) (tao_rollout_ended_total{{{S}}})", "{{phase}}"),
                steps=True,
                decimals=0,
                colors={"settled": GREEN, "aborted": RED, "rolled_back": "dark-red", "superseded": GREY},
            ),
        ],
    )


def _evidence() -> Row:
    value = f"max by (test) (tao_rollout_evidence_ratio{{{S}}})"
    threshold = f"max by (test) (tao_rollout_evidence_threshold_ratio{{{S}}})"
    return Row(
        "Evidence",
        [
            lines(
                "How near each test is to speaking",
                "E-value over its threshold. At 1 not_inferior lets the shadow end, and any other aborts.",
                "percentunit",
                Query(f"{value} / {threshold}", "{{test}}"),
                high=1,
                decimals=0,
                width=6,
                colors={"not_inferior": GREEN, "worse": RED},
            ),
            lines(
                "Shadow pairs",
                "Live prompts that both versions answered, and how many are needed at least.",
                "none",
                Query(f"max(tao_rollout_shadow_pairs{{{S}}})", "scored"),
                Query(f"max(tao_rollout_shadow_wanted_pairs{{{S}}})", "wanted"),
                Query(f"max(tao_rollout_shadow_skipped_pairs{{{S}}})", "skipped"),
                Query(f"max(tao_rollout_shadow_failed_pairs{{{S}}})", "candidate failed"),
                steps=True,
                decimals=0,
                width=6,
                colors={"wanted": GREY, "candidate failed": RED},
            ),
            lines(
                "Shadow difference",
                "Mean of candidate minus incumbent over the shadow pairs.",
                "none",
                Query(f"max(tao_rollout_shadow_mean_difference_ratio{{{S}}})", "difference"),
                low=None,
                decimals=2,
                width=6,
            ),
            lines(
                "Canary conversations",
                "First seen in each arm, and those of the candidate with a failure.",
                "none",
                Query(f"max by (arm) (tao_rollout_canary_conversations{{{S}}})", "{{arm}}"),
                Query(
                    f'max by (failure) (tao_rollout_canary_failed_conversations{{{S}, arm="candidate"}})',
                    "candidate {{failure}}",
                ),
                steps=True,
                decimals=0,
                width=6,
                colors={"candidate errors": RED},
            ),
        ],
    )


def _gateway() -> Row:
    failed = f"sum by (kind) (rate(tao_gateway_requests_total{{{S}, {FAILED}}}[{RATE}]))"
    every = f"sum by (kind) (rate(tao_gateway_requests_total{{{S}}}[{RATE}]))"
    return Row(
        "What each version gives clients",
        [
            lines(
                "Requests by version",
                "Per second. none: refused before any version was chosen.",
                "reqps",
                Query(every, "{{kind}}"),
                stacked=True,
                width=6,
                colors=KINDS,
            ),
            lines(
                "Failing by version",
                "Share that ended with 5xx or was cut off.",
                "percentunit",
                Query(f"({failed} or 0 * {every}) / {every}", "{{kind}}"),
                width=6,
                colors=KINDS,
            ),
            lines(
                "95 % of answers take at most",
                "From the request's arrival to the last byte.",
                "s",
                Query(quantile(0.95, "tao_gateway_request_duration_seconds", "kind"), "{{kind}}"),
                width=6,
                colors=KINDS,
            ),
            lines(
                "95 % of streams begin within",
                "From the request's arrival to the first event of a streamed answer.",
                "s",
                Query(quantile(0.95, "tao_gateway_time_to_first_token_seconds", "kind"), "{{kind}}"),
                width=6,
                colors=KINDS,
            ),
            lines(
                "Completion tokens",
                "Per second, by version.",
                "suffix:tokens/s",
                Query(f"sum by (kind) (rate(tao_gateway_completion_tokens_total{{{S}}}[{RATE}]))", "{{kind}}"),
                stacked=True,
                width=6,
                colors=KINDS,
            ),
            lines(
                "Cut off by their length limit",
                "Answers per second, by version.",
                "cps",
                Query(f"sum by (kind) (rate(tao_gateway_truncated_answers_total{{{S}}}[{RATE}]))", "{{kind}}"),
                width=6,
                colors=KINDS,
            ),
            lines(
                "Being answered now",
                "Requests in each gateway.",
                "none",
                Query(f"tao_gateway_in_flight_requests{{{S}}}", "{{instance}}"),
                decimals=0,
                width=6,
            ),
            lines(
                "Fallbacks and lost attempts",
                "Per second: requests that another version answered, and attempts at a server that gave nothing.",
                "cps",
                Query(f"sum(rate(tao_gateway_fallbacks_total{{{S}}}[{RATE}]))", "fallbacks"),
                Query(f"sum(rate(tao_gateway_unreachable_replicas_total{{{S}}}[{RATE}]))", "no answer"),
                width=6,
                colors={"no answer": RED},
            ),
        ],
    )


def _delivery() -> Row:
    failures = f"sum by (operation, outcome) (increase(tao_serving_request_failures_total{{{S}}}[{RATE}])) > 0"
    none = otherwise("vector(0)", "operation", "none failed")
    return Row(
        "Delivery",
        [
            lines(
                "Generation of the routes",
                "A gateway below the daemon serves old routes. Alert TaoUndoStuck.",
                "none",
                Query(f"max(tao_rollout_routes_generation{{{S}}})", "daemon"),
                Query(f"tao_gateway_routes_generation{{{S}}}", "{{instance}}"),
                steps=True,
                decimals=0,
                width=6,
            ),
            lines(
                "Until every gateway has a flip",
                "Mean seconds from publishing routes to the last gateway's adoption, within the time range.",
                "s",
                Query(f"max by (cause) ({mean('tao_rollout_flip_seconds')})", "{{cause}}"),
                width=6,
            ),
            lines(
                "Adapters on the model servers",
                "As each replica lists them; near its --max-loras vLLM evicts in silence.",
                "none",
                Query(f"tao_serving_replica_adapters{{{S}}}", "{{replica}}"),
                steps=True,
                decimals=0,
                width=6,
            ),
            lines(
                "Calls of the daemon that failed",
                "To model servers, within the rate interval, by operation and why.",
                "none",
                Query(f"{failures} or on() {none}", "{{operation}} {{outcome}}"),
                decimals=0,
                width=6,
            ),
        ],
    )
