"""Metrics of scoring: what can teach, who fails, and what models that score cost."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from tao_daemon.clients.prometheus import make_counter, make_gauge, make_histogram
from tao_daemon.domain.completion import PLAIN
from tao_daemon.domain.metrics import OTHER, UNKNOWN, Label, counter, gauge, histogram
from tao_daemon.domain.signals import DecoysJudged, GroupsScored, ScorerAsked, ScorerFailed, ScorerKnown

_SCORER = Label("scorer", one_for_each="configured scorer")

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
    "Mean reward of the latest round's groups that are kept: of all completions, and of the plain ones alone.",
    "Over rounds: plain rises when learning works, but what is solved is dropped and counts no more: look at "
    "tao_scoring_groups_total too.",
    Label("completions", ("all", PLAIN)),
    start=UNKNOWN,
)
UNSCORED = counter(
    "tao_scoring_unscored_completions",
    "completions",
    "Completions that a scorer gave no score; their groups are left out.",
    "tao_scoring_failures_total rises: which scorer, and why. untrusted: a judge fell for planted answers.",
    _SCORER,
    Label(
        "kind",
        ("timeout", "error", "out_of_range", "stuck", "unreadable", "unavailable", "untrusted", "unmatched", OTHER),
    ),
)
REQUESTS = counter(
    "tao_scoring_requests",
    "requests",
    "Requests to models that score.",
    "unreadable: the judge's model does not answer as it is asked to, and is asked again.",
    _SCORER,
    Label("outcome", ("ok", "unreadable", "failed", OTHER)),
)
REQUEST_SECONDS = histogram(
    "tao_scoring_request_seconds",
    "seconds",
    "Length of requests to models that score.",
    "Scoring phases take longer than they did.",
    _SCORER,
    buckets=(0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
TOKENS = counter(
    "tao_scoring_tokens",
    "tokens",
    "Tokens of requests to models that score.",
    "What a judge costs.",
    _SCORER,
    Label("kind", ("prompt", "completion")),
)
COST = counter(
    "tao_scoring_cost",
    "money",
    "What models that score cost, by the prices in [[scorers]].",
    "Your budget.",
    _SCORER,
)
DECOYS = counter(
    "tao_scoring_decoys",
    "answers",
    "Meaningless answers planted among those that a judge compares.",
    "fooled is a tenth or more of them: the judge rewards form; do not train on it.",
    _SCORER,
    Label("result", ("fooled", "seen_through")),
)
FAMILIES = (
    GROUPS,
    SCORER_FAILURES,
    REWARD,
    UNSCORED,
    REQUESTS,
    REQUEST_SECONDS,
    TOKENS,
    COST,
    DECOYS,
)


class ScoringMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._groups = make_counter(GROUPS, registry)
        self._failures = make_counter(SCORER_FAILURES, registry)
        self._reward = make_gauge(REWARD, registry)
        self._unscored = make_counter(UNSCORED, registry)
        self._requests = make_counter(REQUESTS, registry)
        self._seconds = make_histogram(REQUEST_SECONDS, registry)
        self._tokens = make_counter(TOKENS, registry)
        self._cost = make_counter(COST, registry)
        self._decoys = make_counter(DECOYS, registry)

    def scored(self, signal: GroupsScored) -> None:
        self._groups.labels("kept").inc(signal.kept)
        self._groups.labels("dropped").inc(signal.dropped)
        self._failures.inc(signal.scorer_failures)
        self._reward.labels("all").set(signal.mean_reward if signal.kept else UNKNOWN)
        self._reward.labels(PLAIN).set(signal.mean_reward_plain if signal.kept else UNKNOWN)

    def failed(self, signal: ScorerFailed) -> None:
        self._unscored.labels(signal.scorer, UNSCORED.labels[1].known(signal.kind)).inc(signal.count)

    def known(self, signal: ScorerKnown) -> None:
        for kind in UNSCORED.labels[1].values:
            self._unscored.labels(signal.scorer, kind)
        if signal.kind in ("judge", "reward_model"):
            for outcome in REQUESTS.labels[1].values:
                self._requests.labels(signal.scorer, outcome)
            for kind in TOKENS.labels[1].values:
                self._tokens.labels(signal.scorer, kind)
            self._seconds.labels(signal.scorer)
            self._cost.labels(signal.scorer)
        if signal.kind == "judge":
            for result in DECOYS.labels[1].values:
                self._decoys.labels(signal.scorer, result)

    def asked(self, signal: ScorerAsked) -> None:
        self._requests.labels(signal.scorer, REQUESTS.labels[1].known(signal.outcome)).inc()
        self._seconds.labels(signal.scorer).observe(signal.seconds)
        self._tokens.labels(signal.scorer, "prompt").inc(signal.prompt_tokens)
        self._tokens.labels(signal.scorer, "completion").inc(signal.completion_tokens)
        self._cost.labels(signal.scorer).inc(signal.cost)

    def decoys(self, signal: DecoysJudged) -> None:
        self._decoys.labels(signal.scorer, "fooled").inc(signal.fooled)
        self._decoys.labels(signal.scorer, "seen_through").inc(signal.planted - signal.fooled)
