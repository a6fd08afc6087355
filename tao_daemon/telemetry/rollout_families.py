"""The metrics of rollouts, declared: routes and gateways, the open rollout, its evidence, what became of it."""

from __future__ import annotations

from tao_daemon.domain.metrics import UNKNOWN, Label, counter, flag, gauge, histogram, info, timestamp
from tao_daemon.domain.rollout import RolloutPhase

OPEN_PHASES = tuple(phase for phase in RolloutPhase if phase.is_open)
HOLD_REASONS = ("verifying", "paused", "approval", "freeze", "no_gateway", "evidence")
TESTS = ("worse", "not_inferior", "errors", "slow", "truncated", "error_rate")
ARMS = ("incumbent", "candidate")
FAILURES = ("errors", "slow", "truncated")
FLIP_CAUSES = ("undo", "rollout", "fleet")
_ENDED = Label("phase", tuple(phase for phase in RolloutPhase if not phase.is_open))
_ARM = Label("arm", ARMS)
_TEST = Label("test", TESTS)

# What serves
GENERATION = gauge(
    "tao_rollout_routes_generation",
    "generation",
    "Generation of the routes; it grows with every change of what serves.",
    "Beside tao_gateway_routes_generation: a gateway that stays below serves old routes.",
)
INCUMBENT = info(
    "tao_rollout_incumbent",
    "The adapters in the routes; empty is the base model, or nobody.",
    "What serves? One series at a time.",
    Label("adapter", one_for_each="adapter, one series at a time"),
    Label("previous", one_for_each="adapter, one series at a time"),
    Label("candidate", one_for_each="adapter, one series at a time"),
)
SINCE = timestamp(
    "tao_rollout_incumbent_since",
    "Since when the incumbent serves everything.",
    "What changed when quality did?",
)
ON_BASE = flag(
    "tao_rollout_serving_base",
    "1 while the base model serves, 0 while an adapter does.",
    "After an undo; an unexpected 1 means that the gain is gone.",
)
RETURNING = flag(
    "tao_rollout_returning",
    "1 while an undo waits for its adapter to be loaded and verified.",
    "An undo was asked for and the old version still serves.",
)
FLIP_SECONDS = histogram(
    "tao_rollout_flip_seconds",
    "seconds",
    "From publishing routes to the last live gateway's adoption, by what changed them; without live gateways not "
    "measured; given up, and put above all edges, after a minute.",
    "How fast an undo takes effect: under a second is what to expect.",
    Label("cause", FLIP_CAUSES),
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
UNDOS = counter(
    "tao_rollout_undos",
    "requests",
    "Requests to undo: done at once, loading (the adapter is loaded first), or refused.",
    "Somebody took a version back: `tao-daemon audit show` says who and why.",
    Label("outcome", ("done", "loading", "refused")),
)

# Gateways
LIVE = gauge(
    "tao_rollout_live_gateways",
    "gateways",
    "Gateway processes whose lease runs.",
    "Fewer than were started.",
)
REPORTING = gauge(
    "tao_rollout_reporting_gateways",
    "gateways",
    "Live gateways that report their counters; the others only ask for routes.",
    "Fewer than live: they have only just begun, or their reports fail. A canary then waits, and nothing is drained.",
)
BEHIND = gauge(
    "tao_rollout_behind_gateways",
    "gateways",
    "Live gateways that have not adopted the present routes.",
    "Above 0 for more than seconds: an undo or a flip has not reached everybody.",
)

# The open rollout
PHASE = flag(
    "tao_rollout_phase",
    "1 for the phase that the open rollout is in; all 0 without one.",
    "Is something being rolled out?",
    Label("phase", OPEN_PHASES),
)
PHASE_SINCE = timestamp(
    "tao_rollout_since",
    "When the open rollout entered its phase or canary step; 0 without one.",
    "It has not moved for long: see tao_rollout_holding.",
)
STARTED = timestamp(
    "tao_rollout_started",
    "When the open rollout began; 0 without one.",
    "How long rollouts take.",
)
FRACTION = gauge(
    "tao_rollout_traffic_fraction_ratio",
    "ratio",
    "Share of conversations that the candidate answers.",
    "Who sees the candidate. In baking it is 0: the candidate is the incumbent then.",
)
PAUSED = flag(
    "tao_rollout_paused",
    "1 while a person holds the open rollout.",
    "Somebody paused it and forgot.",
)
HOLDING = flag(
    "tao_rollout_holding",
    "1 for the reason why the open rollout does not move now; their sum is 1 while one is open.",
    "approval: a person is waited for. no_gateway: nobody reports, it will never move. evidence: traffic is needed.",
    Label("reason", HOLD_REASONS),
)
APPROVAL_SINCE = timestamp(
    "tao_rollout_approval_waiting_since",
    "Since when the open rollout waits for nothing but an approval; 0 when it does not.",
    "Remind the one who approves.",
)

# The latest rollout's evidence; it stays when the rollout ends, so that what ended it is seen
PAIRS = gauge(
    "tao_rollout_shadow_pairs",
    "pairs",
    "Shadow pairs of the latest rollout's present evidence; baking starts afresh.",
    "The shadow stands still: is there live traffic that a scorer matches?",
)
WANTED = gauge(
    "tao_rollout_shadow_wanted_pairs",
    "pairs",
    "Pairs that the shadow needs at least (rollout.shadow_pairs).",
    "Beside tao_rollout_shadow_pairs.",
)
SKIPPED = gauge(
    "tao_rollout_shadow_skipped_pairs",
    "pairs",
    "Shadow pairs that could not be scored: no incumbent's answer, no adapter on a server, or no score.",
    "As many as scored ones: the evidence is of a part of the traffic only.",
)
FAILED = gauge(
    "tao_rollout_shadow_failed_pairs",
    "pairs",
    "Shadow pairs in which the candidate gave no answer where the incumbent did; each counts as -1.",
    "A candidate is aborted in the shadow: a server fails with it, or refuses what it says.",
)
DIFFERENCE = gauge(
    "tao_rollout_shadow_mean_difference_ratio",
    "ratio",
    "Mean of candidate minus incumbent over the shadow pairs.",
    "How the candidate does on live prompts.",
    start=UNKNOWN,
)
EVIDENCE = gauge(
    "tao_rollout_evidence_ratio",
    "ratio",
    "E-value of each test on the latest rollout: the wealth of a bet that starts with 1. At its threshold, "
    "not_inferior lets the shadow end, and any other aborts.",
    "How near the rollout is to an abort.",
    _TEST,
    start=UNKNOWN,
)
THRESHOLD = gauge(
    "tao_rollout_evidence_threshold_ratio",
    "ratio",
    "E-value at which the test speaks.",
    "Beside tao_rollout_evidence_ratio.",
    _TEST,
    start=UNKNOWN,
)
CANARY_REQUESTS = gauge(
    "tao_rollout_canary_requests",
    "requests",
    "Requests of the latest rollout's canary or baking, by arm.",
    "The split does not get its share.",
    _ARM,
)
CANARY_CONVERSATIONS = gauge(
    "tao_rollout_canary_conversations",
    "conversations",
    "Conversations first seen in the arm.",
    "A canary step takes long: compare with rollout.step_conversations.",
    _ARM,
)
CANARY_FAILED = gauge(
    "tao_rollout_canary_failed_conversations",
    "conversations",
    "Conversations whose first failure of the kind was in the arm.",
    "Which failure speaks against the candidate.",
    _ARM,
    Label("failure", FAILURES),
)

# What became of them
ENDED = counter(
    "tao_rollout_ended",
    "rollouts",
    "Rollouts by how they ended.",
    "aborted or rolled_back: the candidate was worse; `tao-daemon rollout history` says by what.",
    _ENDED,
)
LAST_ENDED = timestamp(
    "tao_rollout_last_ended",
    "When a rollout last ended so; after a restart, of the latest rollout alone.",
    "How long ago something was delivered.",
    _ENDED,
)
VERIFICATIONS = counter(
    "tao_rollout_verifications",
    "attempts",
    "Adapters that were loaded everywhere and proven to serve, or could not be.",
    "failed: servers refuse the adapter, or do not truly serve it.",
    Label("outcome", ("verified", "failed")),
)
FAMILIES = (
    GENERATION,
    INCUMBENT,
    SINCE,
    ON_BASE,
    RETURNING,
    FLIP_SECONDS,
    UNDOS,
    LIVE,
    REPORTING,
    BEHIND,
    PHASE,
    PHASE_SINCE,
    STARTED,
    FRACTION,
    PAUSED,
    HOLDING,
    APPROVAL_SINCE,
    PAIRS,
    WANTED,
    SKIPPED,
    FAILED,
    DIFFERENCE,
    EVIDENCE,
    THRESHOLD,
    CANARY_REQUESTS,
    CANARY_CONVERSATIONS,
    CANARY_FAILED,
    ENDED,
    LAST_ENDED,
    VERIFICATIONS,
)
