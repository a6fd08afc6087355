"""The on-call's page: are clients served well, is everything there, does the loop go on."""

from __future__ import annotations

from typing import Any

from grafana.builder.layout import build
from grafana.builder.panels import BLUE, GREEN, GREY, RED, YELLOW, Query, Row, S, lines, number, otherwise

RATE = "$__rate_interval"
OUTCOMES = {"accepted": GREEN, "rejected": YELLOW, "inconclusive": BLUE, "failed": RED, "cancelled": GREY}
FAILED = 'status=~"5xx|cut"'


def error_share(by: str = "") -> str:
    """Failed requests over all; 0 where nothing has failed so far."""
    group = f" by ({by})" if by else ""
    every = f"sum{group} (rate(tao_gateway_requests_total{{{S}}}[{RATE}]))"
    failed = f"sum{group} (rate(tao_gateway_requests_total{{{S}, {FAILED}}}[{RATE}]))"
    return f"({failed} or 0 * {every}) / {every}"


def quantile(q: float, metric: str, by: str = "") -> str:
    """A quantile of a histogram over the rate interval."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q:g}, sum by ({labels}) (rate({metric}_bucket{{{S}}}[{RATE}])))"


def mean(metric: str) -> str:
    """Mean of a histogram's observations within the dashboard's time range."""
    total, count = (f"increase({metric}_{part}{{{S}}}[$__range])" for part in ("sum", "count"))
    return f"{total} / {count}"


def phase(metric: str, idle: str) -> Query:
    """The phase that has the value 1, by name; `idle` when none has."""
    now = f"max by (phase) ({metric}{{{S}}}) == 1"
    none = otherwise(f"sum({metric}{{{S}}}) == 0", "phase", idle)
    return Query(f"{now} or on() {none}", "{{phase}}", instant=True)


def overview() -> dict[str, Any]:
    return build(
        "tao-overview",
        "tao-daemon: overview",
        "Are clients served well, is everything there, does the loop go on. Runbook: docs/runbook.md",
        [_now(), _clients(), _parts(), _loop()],
    )


def _now() -> Row:
    adapter = f"max by (adapter) (tao_rollout_incumbent_info{{{S}}})"
    unready = f"sum(tao_serving_replica_ready{{{S}}}) / count(tao_serving_replica_ready{{{S}}})"
    return Row(
        "Now",
        [
            number(
                "Alerts firing",
                "Of tao-daemon's rules (deploy/prometheus).",
                "none",
                Query('count(ALERTS{alertname=~"Tao.*", alertstate="firing"}) or vector(0)', "alerts"),
                (None, GREEN),
                (1, RED),
                width=3,
            ),
            number(
                "Serves",
                "What answers clients: an adapter, or the base model.",
                "none",
                Query(otherwise(adapter, "adapter", "base model"), "{{adapter}}", instant=True),
                width=6,
                named=True,
            ),
            number(
                "Requests failing",
                "5xx, or cut off in the middle.",
                "percentunit",
                Query(error_share(), "failing"),
                (None, GREEN),
                (0.01, YELLOW),
                (0.05, RED),
                width=3,
                decimals=1,
            ),
            number(
                "Model servers ready",
                "Share of the replicas that have everything loaded and verified.",
                "percentunit",
                Query(unready, "ready"),
                (None, RED),
                (0.5, YELLOW),
                (1, GREEN),
                width=3,
                decimals=0,
            ),
            number(
                "Round",
                "The phase that runs.",
                "none",
                phase("tao_round_phase", "none"),
                width=3,
                named=True,
            ),
            number(
                "Rollout",
                "The phase of the open rollout.",
                "none",
                phase("tao_rollout_phase", "none"),
                width=3,
                named=True,
            ),
            number(
                "Records waiting",
                "In Kafka, not yet in the buffer.",
                "short",
                Query(f"sum(tao_intake_lag_records{{{S}}})", "records"),
                (None, GREEN),
                (10_000, YELLOW),
                width=3,
                decimals=0,
            ),
        ],
    )


def _clients() -> Row:
    duration = "tao_gateway_request_duration_seconds"
    return Row(
        "What clients see",
        [
            lines(
                "Requests",
                "Per second, by how they ended. cut: broke off after the first byte. cancelled: the client gave up.",
                "reqps",
                Query(f"sum by (status) (rate(tao_gateway_requests_total{{{S}}}[{RATE}]))", "{{status}}"),
                stacked=True,
                colors={"2xx": GREEN, "4xx": YELLOW, "5xx": RED, "cut": "dark-red", "cancelled": BLUE},
            ),
            lines(
                "Failing",
                "Share of requests that ended with 5xx or were cut off. Alert TaoGatewayErrors above 5 %.",
                "percentunit",
                Query(error_share(), "failing"),
                colors={"failing": RED},
            ),
            lines(
                "How long answers take",
                "From the request's arrival to the last byte of its answer.",
                "s",
                *(Query(quantile(q, duration), name) for q, name in ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))),
            ),
        ],
    )


def _parts() -> Row:
    return Row(
        "Is everything there",
        [
            lines(
                "Model servers",
                "ready: all that the routes name is loaded and verified. Alerts TaoModelServerDown, TaoReplicaUnready.",
                "none",
                Query(f"sum(tao_serving_replica_reachable{{{S}}})", "answer"),
                Query(f"sum(tao_serving_replica_ready{{{S}}})", "ready"),
                Query(f"count(tao_serving_replica_ready{{{S}}})", "configured"),
                steps=True,
                decimals=0,
                width=6,
                colors={"configured": GREY, "ready": GREEN, "answer": BLUE},
            ),
            lines(
                "Gateways",
                "behind: have not adopted the present routes. Alerts TaoGatewayOutOfTouch, TaoUndoStuck.",
                "none",
                Query(f"sum(tao_rollout_live_gateways{{{S}}})", "live"),
                Query(f"sum(tao_rollout_reporting_gateways{{{S}}})", "reporting"),
                Query(f"sum(tao_rollout_behind_gateways{{{S}}})", "behind"),
                steps=True,
                decimals=0,
                width=6,
                colors={"behind": RED},
            ),
            lines(
                "Memory",
                "Resident memory of each process.",
                "bytes",
                Query(f"process_resident_memory_bytes{{{S}}}", "{{job}} {{instance}}"),
                width=6,
            ),
            lines(
                "Warnings and errors in logs",
                "Log records per minute. The log of that time says what.",
                "short",
                Query(f"sum by (level) (rate(tao_process_log_records_total{{{S}}}[{RATE}])) * 60", "{{level}}"),
                width=6,
                colors={"warning": YELLOW, "error": RED, "critical": "dark-red"},
            ),
        ],
    )


def _loop() -> Row:
    return Row(
        "Does the loop go on",
        [
            lines(
                "Prompts into the buffer",
                "Per second, by what they may be used for.",
                "cps",
                Query(f"sum by (split) (rate(tao_intake_prompts_total{{{S}}}[{RATE}]))", "{{split}}"),
                width=6,
            ),
            lines(
                "Fresh prompts",
                "In no round yet: what the next round and its gate can take.",
                "short",
                Query(f"max by (split) (tao_buffer_available_prompts{{{S}}})", "{{split}}"),
                width=6,
                decimals=0,
            ),
            lines(
                "Rounds ended",
                "Since the daemon started, by how they ended.",
                "none",
                Query(f"sum by (outcome) (tao_round_ended_total{{{S}}})", "{{outcome}}"),
                steps=True,
                width=6,
                decimals=0,
                colors=OUTCOMES,
            ),
            lines(
                "Held-out score, latest gate",
                "Mean score of the version that served and of the candidate, on prompts that never trained.",
                "none",
                Query(f"max by (version) (tao_evaluation_score_ratio{{{S}}})", "{{version}}"),
                steps=True,
                high=1,
                width=6,
                decimals=2,
            ),
        ],
    )
