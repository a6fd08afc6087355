"""Rounds and learning: what a round does, what it costs the servers, and whether candidates gain."""

from __future__ import annotations

from typing import Any

from grafana.builder.layout import build
from grafana.builder.overview import OUTCOMES, RATE, mean, phase
from grafana.builder.panels import BLUE, GREEN, GREY, PURPLE, RED, YELLOW, Query, Row, S, lines, number

PHASES = {"claiming": GREY, "sampling": BLUE, "scoring": PURPLE, "training": YELLOW, "evaluating": GREEN}


def learning() -> dict[str, Any]:
    return build(
        "tao-learning",
        "tao-daemon: rounds and learning",
        "What a round does, what it costs the servers, and whether candidates gain.",
        [_gain(), _round(), _sampling(), _drift(), _training()],
        window="now-24h",
    )


def _gain() -> Row:
    return Row(
        "Gain",
        [
            number(
                "Latest difference",
                "Candidate minus incumbent on held-out prompts, latest gate.",
                "none",
                Query(f'max(tao_evaluation_difference_ratio{{{S}, bound="mean"}})', "difference"),
                (None, RED),
                (0, GREEN),
                decimals=2,
                height=7,
            ),
            lines(
                "Difference with its interval",
                "Candidate minus incumbent on held-out prompts at each gate. A pass needs low above 0.",
                "none",
                Query(f"max by (bound) (tao_evaluation_difference_ratio{{{S}}})", "{{bound}}"),
                steps=True,
                low=None,
                decimals=2,
                width=7,
                colors={"mean": GREEN, "low": GREY, "high": GREY},
            ),
            lines(
                "Held-out score",
                "Mean score at each gate. Fresh prompts every time, so neighbouring points are of different prompts.",
                "none",
                Query(f"max by (version) (tao_evaluation_score_ratio{{{S}}})", "{{version}}"),
                steps=True,
                high=1,
                decimals=2,
                width=7,
            ),
            lines(
                "Verdicts",
                "Of the gate since the daemon started.",
                "none",
                Query(f"sum by (decision) (tao_evaluation_verdicts_total{{{S}}})", "{{decision}}"),
                steps=True,
                decimals=0,
                width=6,
                colors={"pass": GREEN, "fail": RED, "inconclusive": BLUE},
            ),
        ],
    )


def _round() -> Row:
    return Row(
        "The round",
        [
            number("Phase", "The phase that runs.", "none", phase("tao_round_phase", "none"), named=True, height=7),
            lines(
                "Phases over time",
                "1 for the phase that runs.",
                "none",
                Query(f"max by (phase) (tao_round_phase{{{S}}})", "{{phase}}"),
                stacked=True,
                steps=True,
                high=1,
                decimals=0,
                width=7,
                colors=PHASES,
            ),
            lines(
                "Progress of the phase",
                "From 0 to 1 in every phase that says how far it is.",
                "percentunit",
                Query(f"max(tao_round_phase_progress_ratio{{{S}}})", "progress"),
                high=1,
                width=6,
            ),
            lines(
                "Length of phases",
                "Mean of the phases that succeeded within the dashboard's time range.",
                "s",
                Query(f"max by (phase) ({mean('tao_round_phase_seconds')})", "{{phase}}"),
                width=7,
                colors=PHASES,
            ),
            lines(
                "Rounds ended",
                "Since the daemon started.",
                "none",
                Query(f"sum by (outcome) (tao_round_ended_total{{{S}}})", "{{outcome}}"),
                steps=True,
                decimals=0,
                width=8,
                colors=OUTCOMES,
            ),
            lines(
                "Phases that failed",
                "Since the daemon started. `tao-daemon round show ID` says why.",
                "none",
                Query(f"sum by (phase) (tao_round_phase_failures_total{{{S}}})", "{{phase}}"),
                steps=True,
                decimals=0,
                width=8,
                colors=PHASES,
            ),
            lines(
                "What keeps a round",
                "due: one is due and has not begun, for an open rollout or the clearing up of the last one. "
                "prompts: enough are buffered, and the scorers match too few.",
                "none",
                Query(f"max(tao_round_due{{{S}}})", "due"),
                Query(f"max(tao_round_lacks_prompts{{{S}}})", "prompts"),
                steps=True,
                high=1,
                decimals=0,
                width=8,
            ),
        ],
    )


def _sampling() -> Row:
    return Row(
        "Sampling and scoring",
        [
            lines(
                "Completions",
                "Sampled per second, by strategy.",
                "cps",
                Query(f"sum by (strategy) (rate(tao_sampling_completions_total{{{S}}}[{RATE}]))", "{{strategy}}"),
                stacked=True,
                width=6,
            ),
            lines(
                "Tokens",
                "Sampled per second: what rounds cost the model servers.",
                "suffix:tokens/s",
                Query(f"sum(rate(tao_sampling_tokens_total{{{S}}}[{RATE}]))", "tokens"),
                width=6,
            ),
            lines(
                "Pacing",
                "Requests in flight, those that wait, and how many may be in flight beside live ones.",
                "none",
                Query(f"sum(tao_sampling_limit_requests{{{S}}})", "limit"),
                Query(f"sum(tao_sampling_in_flight_requests{{{S}}})", "in flight"),
                Query(f"sum(tao_sampling_waiting_requests{{{S}}})", "waiting"),
                decimals=0,
                width=6,
                colors={"limit": GREY},
            ),
            lines(
                "Live answers, times as slow as usual",
                "99th percentile of live answers while sampling is paced; above [sampling] live_slowdown it gives way.",
                "x",
                Query(f"max(tao_sampling_live_slowdown_ratio{{{S}}})", "slowdown"),
                decimals=1,
                width=6,
            ),
            lines(
                "Mean reward",
                "Of the latest round's groups that can teach: all completions, and the plain ones alone.",
                "none",
                Query(f"max by (completions) (tao_scoring_mean_reward_ratio{{{S}}})", "{{completions}}"),
                steps=True,
                high=1,
                decimals=2,
                width=8,
            ),
            lines(
                "Groups",
                "Since the daemon started: kept ones can teach something.",
                "none",
                Query(f"sum by (fate) (tao_scoring_groups_total{{{S}}})", "{{fate}}"),
                Query(f"sum(tao_scoring_failures_total{{{S}}})", "scorer failed"),
                steps=True,
                decimals=0,
                width=8,
                colors={"kept": GREEN, "dropped": YELLOW, "scorer failed": RED},
            ),
            lines(
                "Samples lost",
                "Since the daemon started, by why.",
                "none",
                Query(f"sum by (kind) (tao_sampling_lost_total{{{S}}})", "{{kind}}"),
                steps=True,
                decimals=0,
                width=8,
            ),
        ],
    )


def _drift() -> Row:
    return Row(
        "What the completions are like",
        [
            lines(
                "Entropy",
                "Nats per token of the latest round's plain completions. Falling on and on, the model collapses.",
                "suffix:nats",
                Query(f"max(tao_sampling_entropy_nats{{{S}}})", "nats per token"),
                steps=True,
                decimals=2,
                width=6,
            ),
            lines(
                "Length",
                "Tokens per plain completion of the latest round.",
                "suffix:tokens",
                Query(f"max by (statistic) (tao_sampling_length_tokens{{{S}}})", "{{statistic}}"),
                steps=True,
                decimals=0,
                width=6,
            ),
            lines(
                "Distinct",
                "Share of distinct words, pairs of words and texts among a prompt's plain completions.",
                "percentunit",
                Query(f"max by (of) (tao_sampling_distinct_ratio{{{S}}})", "{{of}}"),
                steps=True,
                high=1,
                width=6,
            ),
            lines(
                "Spoilt",
                "Share of plain completions that were cut off, are empty, repeat without end, or refuse.",
                "percentunit",
                Query(f"max by (how) (tao_sampling_spoilt_ratio{{{S}}})", "{{how}}"),
                steps=True,
                width=6,
            ),
            lines(
                "Divergence of the candidate",
                "KL per answer, on its own answers: from the start of its round, and from the base model.",
                "suffix:nats",
                Query(f"max by (source) (tao_learning_divergence_nats{{{S}}})", "{{source}}"),
                steps=True,
                decimals=1,
                width=8,
            ),
            lines(
                "Requests to models that score",
                "Per second, by scorer and outcome.",
                "reqps",
                Query(
                    f"sum by (scorer, outcome) (rate(tao_scoring_requests_total{{{S}}}[{RATE}]))",
                    "{{scorer}} {{outcome}}",
                ),
                stacked=True,
                width=8,
            ),
            lines(
                "Planted answers that fooled a judge",
                "Share since the daemon started; above [[scorers]] max_fooled the judge is not trusted.",
                "percentunit",
                Query(
                    f'sum by (scorer) (tao_scoring_decoys_total{{{S}, result="fooled"}}) '
                    f"/ sum by (scorer) (tao_scoring_decoys_total{{{S}}})",
                    "{{scorer}}",
                ),
                steps=True,
                high=1,
                width=8,
            ),
        ],
    )


def _training() -> Row:
    return Row(
        "Training",
        [
            lines(
                "Loss",
                "Of the latest optimizer step. A policy gradient's loss need not fall.",
                "none",
                Query(f"max(tao_learning_loss{{{S}}})", "loss"),
                low=None,
                width=6,
                decimals=3,
            ),
            lines(
                "KL to the start of the round",
                "Mean nats per token; training stops at [training] kl_budget.",
                "suffix:nats",
                Query(f"max(tao_learning_kl_nats{{{S}}})", "nats per token"),
                width=6,
            ),
            lines(
                "Server and trainer differ",
                "Mean absolute difference of log-probabilities per token; [training] max_mismatch refuses.",
                "suffix:nats",
                Query(f"max(tao_learning_mismatch_nats{{{S}}})", "nats per token"),
                steps=True,
                width=6,
            ),
            lines(
                "Speed",
                "Tokens per second of the latest training.",
                "suffix:tokens/s",
                Query(f"max(tao_learning_speed_tokens_per_second{{{S}}})", "tokens"),
                steps=True,
                width=6,
            ),
        ],
    )
