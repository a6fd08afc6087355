"""The metrics of a gateway, declared. Here, because gateways count them and telemetry documents them."""

from __future__ import annotations

from tao_daemon.domain.metrics import Label, counter, flag, gauge, histogram, info, timestamp

KINDS = ("candidate", "adapter", "previous", "base")
REFUSED = "none"
"""The `kind` of a request that was bound to no version."""
STATUSES = ("2xx", "3xx", "4xx", "5xx", "cut", "cancelled")
DROP_REASONS = ("full", "too_large")
_KIND = Label("kind", KINDS)
_KIND_OR_NONE = Label("kind", (*KINDS, REFUSED))
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

REQUESTS = counter(
    "tao_gateway_requests",
    "requests",
    "Requests by the kind of version that answered (or should have) and by how they ended.",
    "5xx or cut: model servers fail. cancelled: clients do not wait. kind none was refused before any version.",
    _KIND_OR_NONE,
    Label("status", STATUSES),
)
DURATION = histogram(
    "tao_gateway_request_duration_seconds",
    "seconds",
    "From the request's arrival to the last byte of its answer.",
    "Users say that it is slow: which version, and since when?",
    _KIND_OR_NONE,
    buckets=_SECONDS,
)
FIRST_TOKEN = histogram(
    "tao_gateway_time_to_first_token_seconds",
    "seconds",
    "From the request's arrival to the first event of a streamed answer.",
    "Streams start late: the servers queue.",
    _KIND,
    buckets=_SECONDS,
)
TOKENS = counter(
    "tao_gateway_completion_tokens",
    "tokens",
    "Completion tokens: by the answer's usage where it carries one, else one per event of a stream.",
    "Load and answer length by version.",
    _KIND,
)
TRUNCATED = counter(
    "tao_gateway_truncated_answers",
    "answers",
    "Answers cut off by their length limit (finish_reason length).",
    "A version rambles.",
    _KIND,
)
FALLBACKS = counter(
    "tao_gateway_fallbacks",
    "requests",
    "Requests that no reachable replica could answer with a version of this kind.",
    "Clients get an older version or the base model: replicas lack the adapter.",
    _KIND,
)
UNREACHABLE = counter(
    "tao_gateway_unreachable_replicas",
    "attempts",
    "Attempts at a replica that gave no answer.",
    "A model server is down or drops connections.",
)
IN_FLIGHT = gauge(
    "tao_gateway_in_flight_requests",
    "requests",
    "Requests being answered now.",
    "Load; it grows without end when servers hang.",
)
CAPTURED = counter(
    "tao_gateway_captured_prompts",
    "prompts",
    "Prompts that Kafka has acknowledged.",
    "No new prompts arrive in the buffer although there is traffic.",
)
CAPTURE_DROPPED = counter(
    "tao_gateway_capture_dropped_prompts",
    "prompts",
    "Prompts not captured: the queue was full, or they were larger than buffer.max_prompt_bytes.",
    "full: Kafka is slower than the traffic; requests are never delayed for it.",
    Label("reason", DROP_REASONS),
)
CAPTURE_FAILED = counter(
    "tao_gateway_capture_failed_prompts",
    "prompts",
    "Prompts that were given to Kafka and not acknowledged.",
    "Kafka is down or refuses the gateway.",
)
CAPTURE_WAITING = gauge(
    "tao_gateway_capture_queue_prompts",
    "prompts",
    "Prompts that wait for Kafka.",
    "It nears gateway.capture_queue.",
)
LAST_CAPTURE = timestamp(
    "tao_gateway_capture_last_success",
    "When Kafka last acknowledged a prompt.",
    "Prompts wait and none is acknowledged.",
)
GENERATION = gauge(
    "tao_gateway_routes_generation",
    "generation",
    "Generation of the routes in use.",
    "Below tao_rollout_routes_generation for more than seconds: this gateway serves old routes.",
)
FRACTION = gauge(
    "tao_gateway_candidate_fraction_ratio",
    "ratio",
    "The share of conversations that the candidate answers.",
    "Whether the split is the one that was published.",
)
CONNECTED = flag(
    "tao_gateway_daemon_connected",
    "1 while the daemon answers; 0 serves on with the last routes.",
    "The daemon is down, or gateway.daemon_url is wrong.",
)
FAILED_REPORTS = counter(
    "tao_gateway_failed_reports",
    "reports",
    "Reports that the daemon did not take.",
    "A canary waits for counters: gateway.daemon_token is wrong, or the daemon is down.",
)
LAST_REPORT = timestamp(
    "tao_gateway_last_report",
    "When the daemon last took a report.",
    "Since when the daemon hears nothing of this gateway.",
)
ROUTES = info(
    "tao_gateway_routes",
    "The adapters in use; empty is the base model, or nobody.",
    "What does this gateway serve? One series at a time.",
    Label("adapter", one_for_each="adapter, one series at a time"),
    Label("previous", one_for_each="adapter, one series at a time"),
    Label("candidate", one_for_each="adapter, one series at a time"),
)
FAMILIES = (
    REQUESTS,
    DURATION,
    FIRST_TOKEN,
    TOKENS,
    TRUNCATED,
    FALLBACKS,
    UNREACHABLE,
    IN_FLIGHT,
    CAPTURED,
    CAPTURE_DROPPED,
    CAPTURE_FAILED,
    CAPTURE_WAITING,
    LAST_CAPTURE,
    GENERATION,
    FRACTION,
    CONNECTED,
    FAILED_REPORTS,
    LAST_REPORT,
    ROUTES,
)
