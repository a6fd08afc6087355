"""Metrics of intake and of the buffer."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from tao_daemon.clients.prometheus import make_counter, make_gauge, make_histogram
from tao_daemon.domain.metrics import OTHER, UNKNOWN, Label, counter, flag, gauge, histogram, timestamp
from tao_daemon.domain.ports import BufferStats, Clock
from tao_daemon.domain.prompt import Split
from tao_daemon.domain.signals import (
    BufferFailed,
    BufferMeasured,
    BufferWritten,
    DeadLettersFailed,
    IntakeInterrupted,
    IntakeLagMeasured,
    IntakeStateChanged,
    OffsetGapFound,
    PromptsBuffered,
    RecordsRejected,
)

REJECTION_CODES = (
    "empty",
    "too_large",
    "not_utf8",
    "not_json",
    "not_object",
    "too_deep",
    "duplicate_key",
    "bad_number",
    "bad_text",
    "bad_header",
    "bad_field",
    "bad_messages",
    "bad_prompt",
    "no_prompt",
)
"""The codes of `RecordError`."""
_SPLIT = Label("split", tuple(Split))
_FRESH = Label("split", (Split.TRAIN, Split.HELD_OUT))
_STATES = ("consuming", "paused", "broker_unreachable", "buffer_failed", "stopped")

PROMPTS = counter(
    "tao_intake_prompts",
    "prompts",
    "Prompts committed to the buffer, by what they may be used for.",
    "Rounds do not start: is there traffic at all? Its rate should follow the topic's.",
    _SPLIT,
)
DUPLICATES = counter(
    "tao_intake_duplicates",
    "records",
    "Records that were in the buffer already, and were skipped.",
    "After a crash or an import; a steady rate means that offsets do not move on.",
)
REJECTED = counter(
    "tao_intake_rejected",
    "records",
    "Records that cannot be prompts and went to the dead-letter topic, by why.",
    "A producer changed its format: mend it, and produce again. After a limit was raised or an upgrade, with the "
    "daemon stopped, `tao-daemon buffer redrive` reads them again.",
    Label("code", (*REJECTION_CODES, OTHER)),
)
DEAD_LETTER_FAILURES = counter(
    "tao_intake_dead_letter_failures",
    "attempts",
    "Writes of dead letters that the broker did not take; their records are read again.",
    "Intake does not move although the broker answers: is the dead-letter topic writable?",
)
MISSING = counter(
    "tao_intake_missing_offsets",
    "offsets",
    "Offsets that the broker dropped before they were read.",
    "Any increase is lost data: retention is shorter than the outage was.",
)
STATE = flag(
    "tao_intake_state",
    "1 for the state that intake is in; stopped also where kafka.enabled is false.",
    "No prompts arrive. paused: the buffer is slow. buffer_failed: disk below its floor, or the database fails.",
    Label("state", _STATES),
)
STATE_SINCE = timestamp(
    "tao_intake_state_since",
    "When intake entered its state.",
    "How long it has been paused or cut off.",
)
LAG = gauge(
    "tao_intake_lag_records",
    "records",
    "Records of a partition that are not in the buffer yet.",
    "Intake falls behind: growing lag while consuming means that the machine is too slow for the topic.",
    Label("topic", one_for_each="configured topic"),
    Label("partition", one_for_each="partition of the topic"),
)
LAST_COMMIT = timestamp(
    "tao_intake_last_commit",
    "When prompts were last committed to the buffer.",
    "Lag is there and nothing is committed.",
)
INTERRUPTIONS = counter(
    "tao_intake_interruptions",
    "sessions",
    "Sessions with Kafka that ended before they were asked to, by why.",
    "broker_unreachable, in bursts: an outage. replaced, steadily: partitions that stand still, see the log.",
    Label("cause", ("broker_unreachable", "buffer_failed", "replaced")),
)
HELD = gauge(
    "tao_buffer_prompts",
    "prompts",
    "Prompts in the buffer.",
    "Growth of the file; what `buffer forget` took out.",
    _SPLIT,
    start=UNKNOWN,
)
AVAILABLE = gauge(
    "tao_buffer_available_prompts",
    "prompts",
    "Fresh prompts: in no round, below the cap on attempts, not burned by a gate.",
    "A round is due and does not start, or gates are inconclusive for want of held-out prompts.",
    _FRESH,
    start=UNKNOWN,
)
CLUSTERS = gauge(
    "tao_buffer_clusters",
    "clusters",
    "Clusters of near-duplicates.",
    "Far fewer than prompts: the traffic repeats itself, and rounds find little to learn from.",
    start=UNKNOWN,
)
FILE_BYTES = gauge(
    "tao_buffer_file_bytes",
    "bytes",
    "Size of the database and its write-ahead log.",
    "Planning of the disk; the file shrinks only by a compacting copy.",
    start=UNKNOWN,
)
FREE_BYTES = gauge(
    "tao_buffer_free_disk_bytes",
    "bytes",
    "Free space on the file system of the buffer.",
    "It nears tao_buffer_min_free_disk_bytes: intake pauses there, and goes on by itself when there is room.",
    start=UNKNOWN,
)
FLOOR_BYTES = gauge(
    "tao_buffer_min_free_disk_bytes",
    "bytes",
    "Free space below which nothing is ingested (buffer.min_free_disk_mib).",
    "Beside tao_buffer_free_disk_bytes.",
    start=UNKNOWN,
)
WRITE_SECONDS = histogram(
    "tao_buffer_write_seconds",
    "seconds",
    "From the begin of a batch to its commit.",
    "Intake is paused or lags: is the disk slow?",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60),
)
FAILURES = counter(
    "tao_buffer_failures",
    "operations",
    "Operations that the buffer did not do: too little free disk, or an error of the database.",
    "Any increase: intake waits, rounds cannot claim prompts.",
    Label("cause", ("disk_floor", "database")),
)
FAMILIES = (
    PROMPTS,
    DUPLICATES,
    REJECTED,
    DEAD_LETTER_FAILURES,
    MISSING,
    STATE,
    STATE_SINCE,
    LAG,
    LAST_COMMIT,
    INTERRUPTIONS,
    HELD,
    AVAILABLE,
    CLUSTERS,
    FILE_BYTES,
    FREE_BYTES,
    FLOOR_BYTES,
    WRITE_SECONDS,
    FAILURES,
)


class IntakeMetrics:
    """Written from the threads of intake and of the buffer."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._clock = clock
        self._prompts = make_counter(PROMPTS, registry)
        self._duplicates = make_counter(DUPLICATES, registry)
        self._rejected = make_counter(REJECTED, registry)
        self._dead_letter_failures = make_counter(DEAD_LETTER_FAILURES, registry)
        self._missing = make_counter(MISSING, registry)
        self._state = make_gauge(STATE, registry)
        self._state_since = make_gauge(STATE_SINCE, registry)
        self._lag = make_gauge(LAG, registry)
        self._last_commit = make_gauge(LAST_COMMIT, registry)
        self._interruptions = make_counter(INTERRUPTIONS, registry)
        self._state.labels("stopped").set(1)

    def buffered(self, signal: PromptsBuffered) -> None:
        for split in Split:
            self._prompts.labels(split).inc(getattr(signal, split))
        self._duplicates.inc(signal.duplicates)
        self._last_commit.set(self._clock())

    def rejected(self, signal: RecordsRejected) -> None:
        self._rejected.labels(REJECTED.labels[0].known(signal.code)).inc(signal.count)

    def dead_letters_failed(self, signal: DeadLettersFailed) -> None:
        self._dead_letter_failures.inc()

    def gap(self, signal: OffsetGapFound) -> None:
        self._missing.inc(signal.missing)

    def state(self, signal: IntakeStateChanged) -> None:
        for state in _STATES:
            self._state.labels(state).set(state == signal.state)
        self._state_since.set(self._clock())

    def lag(self, signal: IntakeLagMeasured) -> None:
        self._lag.labels(signal.topic, str(signal.partition)).set(signal.records)

    def interrupted(self, signal: IntakeInterrupted) -> None:
        self._interruptions.labels(INTERRUPTIONS.labels[0].known(signal.cause)).inc()


class BufferMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._held = make_gauge(HELD, registry)
        self._available = make_gauge(AVAILABLE, registry)
        self._clusters = make_gauge(CLUSTERS, registry)
        self._file_bytes = make_gauge(FILE_BYTES, registry)
        self._free_bytes = make_gauge(FREE_BYTES, registry)
        self._floor_bytes = make_gauge(FLOOR_BYTES, registry)
        self._write_seconds = make_histogram(WRITE_SECONDS, registry)
        self._failures = make_counter(FAILURES, registry)

    def stats(self, stats: BufferStats) -> None:
        for split in Split:
            self._held.labels(split).set(getattr(stats, split))
        self._available.labels(Split.TRAIN).set(stats.train_available)
        self._available.labels(Split.HELD_OUT).set(stats.held_out_available)
        self._clusters.set(stats.clusters)

    def measured(self, signal: BufferMeasured) -> None:
        self._file_bytes.set(signal.file_bytes)
        self._free_bytes.set(signal.free_bytes)
        self._floor_bytes.set(signal.floor_bytes)

    def written(self, signal: BufferWritten) -> None:
        self._write_seconds.observe(signal.seconds)

    def failed(self, signal: BufferFailed) -> None:
        self._failures.labels(FAILURES.labels[0].known(signal.cause)).inc()
