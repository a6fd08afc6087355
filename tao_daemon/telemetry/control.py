"""Metrics of the daemon's own business: mailbox, journal, control API, notifications."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from tao_daemon.clients.prometheus import make_counter, make_gauge, make_histogram
from tao_daemon.domain.metrics import OTHER, Label, counter, gauge, histogram, timestamp
from tao_daemon.domain.ports import Clock
from tao_daemon.domain.signals import NotificationLag, NotificationSent

_MAX_ROUTES = 100
"""Route templates told apart; the API has fewer. A client cannot make more of them."""
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")

MAILBOX = gauge(
    "tao_daemon_mailbox_events",
    "events",
    "Events that wait for the one task that owns the state.",
    "Above a few: the journal's disk is slow, and every verb waits, undo too.",
)
ENTRIES = counter(
    "tao_journal_entries",
    "entries",
    "Entries written to the journal since the daemon started.",
    "A rate of several per second for long: something is flapping. A write that fails ends the daemon.",
)
LAST_ENTRY = timestamp(
    "tao_journal_last_append",
    "When the journal was last written.",
    "Whether the state still moves.",
)
REQUESTS = counter(
    "tao_control_requests",
    "requests",
    "Requests to the control API by route, method and class of status.",
    "5xx: the daemon does not act in time. 4xx on /v1/routes or /v1/gateways/{id}: a gateway's token.",
    Label("method", (*_METHODS, OTHER)),
    Label("route", one_for_each="route template of the API, other for what matches none"),
    Label("status", ("1xx", "2xx", "3xx", "4xx", "5xx")),
)
REQUEST_SECONDS = histogram(
    "tao_control_request_seconds",
    "seconds",
    "From a request's arrival to its answer. Long polls (/v1/routes) and streams (/v1/events) last as long as asked.",
    "Console or command line are slow.",
    Label("route", one_for_each="route template of the API, other for what matches none"),
    buckets=(0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 30, 60),
)
REJECTIONS = counter(
    "tao_control_token_rejections",
    "requests",
    "Requests without a valid token (unauthenticated), or whose token lacks the scope (forbidden).",
    "A token expired or was revoked while something still uses it; or somebody tries.",
    Label("reason", ("unauthenticated", "forbidden")),
)
SENT = counter(
    "tao_notification_sent",
    "attempts",
    "Tries at notifications by sink: delivered, failed (tried again), or refused (the sink will not take it).",
    "A sink hears nothing, or hears late.",
    Label("sink", one_for_each="configured sink"),
    Label("outcome", ("delivered", "failed", "refused", OTHER)),
)
LAST_SENT = timestamp(
    "tao_notification_last_success",
    "When a notification was last delivered to the sink.",
    "Entries are pending and nothing is delivered.",
    Label("sink", one_for_each="configured sink"),
)
PENDING = gauge(
    "tao_notification_pending_entries",
    "entries",
    "Journal entries that the sink has not been told of.",
    "It grows: the sink is down or slower than events come.",
    Label("sink", one_for_each="configured sink"),
)
FAMILIES = (MAILBOX, ENTRIES, LAST_ENTRY, REQUESTS, REQUEST_SECONDS, REJECTIONS, SENT, LAST_SENT, PENDING)


class MachineMetrics:
    """Mailbox and journal."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._mailbox = make_gauge(MAILBOX, registry)
        self._entries = make_counter(ENTRIES, registry)
        self._last_entry = make_gauge(LAST_ENTRY, registry)

    def waiting(self, events: int) -> None:
        self._mailbox.set(events)

    def journaled(self, now: float) -> None:
        self._entries.inc()
        self._last_entry.set(now)


class ControlMetrics:
    """One call per request, from whatever serves the API."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = make_counter(REQUESTS, registry)
        self._seconds = make_histogram(REQUEST_SECONDS, registry)
        self._rejections = make_counter(REJECTIONS, registry)
        self._routes: set[str] = set()

    def observe(self, method: str, route_template: str | None, status: int, seconds: float) -> None:
        """A request was answered. `route_template` is such as /v1/rounds/{id}, None when no route matched."""
        route = self._known(route_template)
        self._requests.labels(REQUESTS.labels[0].known(method.upper()), route, f"{status // 100}xx").inc()
        self._seconds.labels(route).observe(seconds)
        if status in (401, 403):
            self._rejections.labels("unauthenticated" if status == 401 else "forbidden").inc()

    def _known(self, route: str | None) -> str:
        if route is None or (route not in self._routes and len(self._routes) >= _MAX_ROUTES):
            return OTHER
        self._routes.add(route)
        return route


class NotificationMetrics:
    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._clock = clock
        self._sent = make_counter(SENT, registry)
        self._last = make_gauge(LAST_SENT, registry)
        self._pending = make_gauge(PENDING, registry)

    def sent(self, signal: NotificationSent) -> None:
        self._sent.labels(signal.sink, SENT.labels[1].known(signal.outcome)).inc()
        if signal.outcome == "delivered":
            self._last.labels(signal.sink).set(self._clock())

    def lag(self, signal: NotificationLag) -> None:
        """A sink's other series are there from its first one on."""
        for outcome in SENT.labels[1].values:
            self._sent.labels(signal.sink, outcome)
        self._last.labels(signal.sink)
        self._pending.labels(signal.sink).set(signal.entries)
