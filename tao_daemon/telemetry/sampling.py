"""Metrics of sampling: what it costs, and what the completions are like."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from tao_daemon.clients.prometheus import make_counter, make_gauge, make_histogram
from tao_daemon.domain.completion import PLAIN
from tao_daemon.domain.metrics import OTHER, UNKNOWN, Label, counter, gauge, histogram
from tao_daemon.domain.signals import CompletionsSampled, SamplesLost, SamplesMeasured, SamplingPaced

COMPLETIONS = counter(
    "tao_sampling_completions",
    "completions",
    "Completions sampled, by the strategy that asked for them.",
    "A sampling phase is slow, or a strategy never applies.",
    Label("strategy", one_for_each="configured strategy, and plain"),
)
TOKENS = counter(
    "tao_sampling_tokens",
    "tokens",
    "Completion tokens sampled.",
    "What rounds cost the model servers.",
)
LOST = counter(
    "tao_sampling_lost",
    "requests or completions",
    "Samples that did not come: requests refused by a server or given up, completions that made no sense.",
    "unavailable: servers are down or overloaded. refused: prompts too long for the server, or its settings changed. "
    "no_answer: a chain of thought without the answer that its strategy looks for.",
    Label("kind", ("refused", "unavailable", "malformed", "no_answer", "no_tokens", OTHER)),
)
BUDGET = counter(
    "tao_sampling_budget_completions",
    "completions",
    "Plain completions not asked for where a prompt's rewards were all the same, and those added where they differed.",
    "Whether sampling.first_completions pays.",
    Label("change", ("spared", "added")),
)
GROUP_SECONDS = histogram(
    "tao_sampling_group_seconds",
    "seconds",
    "From the first request for one prompt's completions to the last, turns waited for included.",
    "Sampling is slower than it was: pacing (tao_sampling_limit_requests) or the servers.",
    buckets=(0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600),
)
LIMIT = gauge(
    "tao_sampling_limit_requests",
    "requests",
    "Sampling requests that may be in flight on servers that live requests share; 0 holds sampling.",
    "A sampling phase stands still: live answers are slow, or it learns how long they usually take. Status says which.",
    start=UNKNOWN,
)
IN_FLIGHT = gauge(
    "tao_sampling_in_flight_requests",
    "requests",
    "Paced sampling requests in flight.",
    "Beside tao_sampling_limit_requests.",
)
WAITING = gauge(
    "tao_sampling_waiting_requests",
    "requests",
    "Sampling requests that wait for their turn.",
    "Beside tao_sampling_limit_requests.",
)
SLOWDOWN = gauge(
    "tao_sampling_live_slowdown_ratio",
    "ratio",
    "99th percentile of live answers over the last 30 s, as a multiple of the usual one; only while sampling is paced.",
    "Users complain during a round: above sampling.live_slowdown, sampling must already be giving way.",
    start=UNKNOWN,
)
ENTROPY = gauge(
    "tao_sampling_entropy_nats",
    "nats",
    "Entropy per token of the plain completions of the latest round, estimated from their own log-probabilities.",
    "It falls round after round: the model collapses onto few answers, and soon nothing is left to learn from.",
    start=UNKNOWN,
)
LENGTH = gauge(
    "tao_sampling_length_tokens",
    "tokens",
    "Length of the plain completions of the latest round.",
    "It drifts without need: the scorers reward length, or brevity.",
    Label("statistic", ("mean", "p95")),
    start=UNKNOWN,
)
DISTINCT = gauge(
    "tao_sampling_distinct_ratio",
    "ratio",
    "Share of distinct words, pairs of words and whole texts among a prompt's plain completions, latest round.",
    "Towards 1 / completions for texts: every completion says the same.",
    Label("of", ("words", "pairs", "texts")),
    start=UNKNOWN,
)
SPOILT = gauge(
    "tao_sampling_spoilt_ratio",
    "ratio",
    "Share of the latest round's plain completions that were cut off, are empty, repeat without end, or refuse.",
    "It rises: what the scorers reward is not what users want.",
    Label("how", ("truncated", "empty", "repeated", "refusal")),
    start=UNKNOWN,
)
FAMILIES = (
    COMPLETIONS,
    TOKENS,
    LOST,
    BUDGET,
    GROUP_SECONDS,
    LIMIT,
    IN_FLIGHT,
    WAITING,
    SLOWDOWN,
    ENTROPY,
    LENGTH,
    DISTINCT,
    SPOILT,
)


class SamplingMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._completions = make_counter(COMPLETIONS, registry)
        self._tokens = make_counter(TOKENS, registry)
        self._lost = make_counter(LOST, registry)
        self._budget = make_counter(BUDGET, registry)
        self._group_seconds = make_histogram(GROUP_SECONDS, registry)
        self._limit = make_gauge(LIMIT, registry)
        self._in_flight = make_gauge(IN_FLIGHT, registry)
        self._waiting = make_gauge(WAITING, registry)
        self._slowdown = make_gauge(SLOWDOWN, registry)
        length, distinct, spoilt = (make_gauge(family, registry) for family in (LENGTH, DISTINCT, SPOILT))
        self._meters = {
            "entropy": make_gauge(ENTROPY, registry),
            "tokens_mean": length.labels("mean"),
            "tokens_p95": length.labels("p95"),
            "distinct_1": distinct.labels("words"),
            "distinct_2": distinct.labels("pairs"),
            "distinct_texts": distinct.labels("texts"),
            "truncated": spoilt.labels("truncated"),
            "empty": spoilt.labels("empty"),
            "repeated": spoilt.labels("repeated"),
            "refusals": spoilt.labels("refusal"),
        }
        self._completions.labels(PLAIN)

    def sampled(self, signal: CompletionsSampled) -> None:
        for strategy, count in signal.strategy_counts:
            self._completions.labels(strategy).inc(count)
        self._tokens.inc(signal.tokens)
        self._group_seconds.observe(signal.seconds)
        self._budget.labels("spared").inc(signal.spared)
        self._budget.labels("added").inc(signal.added)

    def measured(self, signal: SamplesMeasured) -> None:
        for name, kept in self._meters.items():
            kept.set(signal.meters.get(name, UNKNOWN))

    def lost(self, signal: SamplesLost) -> None:
        self._lost.labels(LOST.labels[0].known(signal.kind)).inc(signal.count)

    def paced(self, signal: SamplingPaced) -> None:
        self._limit.set(signal.limit)
        self._in_flight.set(signal.in_flight)
        self._waiting.set(signal.waiting)
        self._slowdown.set(UNKNOWN if signal.slowdown is None else signal.slowdown)
