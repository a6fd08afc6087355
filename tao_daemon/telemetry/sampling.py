"""Metrics of sampling and scoring."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from tao_daemon.clients.prometheus import make_counter, make_gauge, make_histogram
from tao_daemon.domain.completion import PLAIN
from tao_daemon.domain.metrics import OTHER, UNKNOWN, Label, counter, gauge, histogram
from tao_daemon.domain.signals import CompletionsSampled, GroupsScored, SamplesLost, SamplingPaced

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
    "unavailable: servers are down or overloaded. refused: prompts too long for the server, or its settings changed.",
    Label("kind", ("refused", "unavailable", "malformed", OTHER)),
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
    "A sampling phase stands still: live answers are slow, and sampling gives way.",
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
GROUPS = counter(
    "tao_scoring_groups",
    "groups",
    "Groups of completions by whether they can teach something.",
    "Rounds fail for want of groups: dropped ones have equal rewards, or could not be scored.",
    Label("fate", ("kept", "dropped")),
)
SCORER_FAILURES = counter(
    "tao_scoring_failures",
    "groups",
    "Groups that a scorer failed on; they are among the dropped ones.",
    "A scorer of yours raises, is too slow, or returns no number in [0, 1]: the log says which.",
)
REWARD = gauge(
    "tao_scoring_mean_reward_ratio",
    "ratio",
    "Mean reward of the latest round: of all completions, and of the plain ones alone.",
    "Over rounds: plain rises when learning works. Both at 1: nothing is left to learn with these scorers.",
    Label("completions", ("all", PLAIN)),
    start=UNKNOWN,
)
FAMILIES = (
    COMPLETIONS,
    TOKENS,
    LOST,
    GROUP_SECONDS,
    LIMIT,
    IN_FLIGHT,
    WAITING,
    SLOWDOWN,
    GROUPS,
    SCORER_FAILURES,
    REWARD,
)


class SamplingMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._completions = make_counter(COMPLETIONS, registry)
        self._tokens = make_counter(TOKENS, registry)
        self._lost = make_counter(LOST, registry)
        self._group_seconds = make_histogram(GROUP_SECONDS, registry)
        self._limit = make_gauge(LIMIT, registry)
        self._in_flight = make_gauge(IN_FLIGHT, registry)
        self._waiting = make_gauge(WAITING, registry)
        self._slowdown = make_gauge(SLOWDOWN, registry)
        self._completions.labels(PLAIN)

    def sampled(self, signal: CompletionsSampled) -> None:
        for strategy, count in signal.strategy_counts:
            self._completions.labels(strategy).inc(count)
        self._tokens.inc(signal.tokens)
        self._group_seconds.observe(signal.seconds)

    def lost(self, signal: SamplesLost) -> None:
        self._lost.labels(LOST.labels[0].known(signal.kind)).inc(signal.count)

    def paced(self, signal: SamplingPaced) -> None:
        self._limit.set(signal.limit)
        self._in_flight.set(signal.in_flight)
        self._waiting.set(signal.waiting)
        self._slowdown.set(UNKNOWN if signal.slowdown is None else signal.slowdown)


class ScoringMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._groups = make_counter(GROUPS, registry)
        self._failures = make_counter(SCORER_FAILURES, registry)
        self._reward = make_gauge(REWARD, registry)

    def scored(self, signal: GroupsScored) -> None:
        self._groups.labels("kept").inc(signal.kept)
        self._groups.labels("dropped").inc(signal.dropped)
        self._failures.inc(signal.scorer_failures)
        self._reward.labels("all").set(signal.mean_reward)
        self._reward.labels(PLAIN).set(signal.mean_reward_plain)
