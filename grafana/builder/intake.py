"""Intake and buffer: do prompts arrive and is there room; and the daemon's own health below."""

from __future__ import annotations

from typing import Any

from grafana.builder.layout import build
from grafana.builder.overview import RATE, quantile
from grafana.builder.panels import BLUE, GREEN, GREY, RED, YELLOW, Query, Row, S, lines, otherwise

STATES = {
    "consuming": GREEN,
    "paused": YELLOW,
    "broker_unreachable": RED,
    "buffer_failed": "dark-red",
    "stopped": GREY,
}


def intake() -> dict[str, Any]:
    return build(
        "tao-intake",
        "tao-daemon: intake and buffer",
        "Do prompts arrive, is there room for them, and is the daemon itself well.",
        [_intake(), _capture(), _buffer(), _process()],
    )


def _intake() -> Row:
    rejected = f"sum by (code) (rate(tao_intake_rejected_total{{{S}}}[{RATE}]))"
    none = otherwise(f"sum(rate(tao_intake_rejected_total{{{S}}}[{RATE}]))", "code", "none")
    return Row(
        "Intake",
        [
            lines(
                "State",
                "1 for the state that intake is in. Alert TaoIntakeStalled.",
                "none",
                Query(f"max by (state) (tao_intake_state{{{S}}})", "{{state}}"),
                stacked=True,
                steps=True,
                high=1,
                decimals=0,
                width=6,
                colors=STATES,
            ),
            lines(
                "Records waiting",
                "In each partition, not yet in the buffer.",
                "short",
                Query(f"sum by (topic, partition) (tao_intake_lag_records{{{S}}})", "{{topic}} {{partition}}"),
                decimals=0,
                width=6,
            ),
            lines(
                "Into the buffer",
                "Prompts per second by split, and records that were there already.",
                "cps",
                Query(f"sum by (split) (rate(tao_intake_prompts_total{{{S}}}[{RATE}]))", "{{split}}"),
                Query(f"sum(rate(tao_intake_duplicates_total{{{S}}}[{RATE}]))", "duplicates"),
                width=6,
            ),
            lines(
                "Into the dead-letter topic",
                "Records per second, by why. Alert TaoRecordsRejected.",
                "cps",
                Query(f"{rejected} > 0 or on() {none}", "{{code}}"),
                width=6,
                colors={"none": GREY},
            ),
            lines(
                "Since the last commit",
                "Seconds since prompts were last committed to the buffer; it grows without traffic too.",
                "s",
                Query(f"max(time() - (tao_intake_last_commit_timestamp_seconds{{{S}}} > 0))", "since"),
                width=8,
            ),
            lines(
                "Lost offsets",
                "Since the daemon started: records that Kafka dropped before they were read. Alert TaoOffsetsLost.",
                "none",
                Query(f"sum(tao_intake_missing_offsets_total{{{S}}})", "offsets"),
                steps=True,
                decimals=0,
                width=8,
                colors={"offsets": RED},
            ),
            lines(
                "Interruptions",
                "Sessions with Kafka that ended unasked, since the daemon started, and failed writes of dead letters.",
                "none",
                Query(f"sum by (cause) (tao_intake_interruptions_total{{{S}}})", "{{cause}}"),
                Query(f"sum(tao_intake_dead_letter_failures_total{{{S}}})", "dead letter failed"),
                steps=True,
                decimals=0,
                width=8,
            ),
        ],
    )


def _capture() -> Row:
    return Row(
        "Capture in the gateways",
        [
            lines(
                "Captured",
                "Prompts per second that Kafka has acknowledged.",
                "cps",
                Query(f"sum(rate(tao_gateway_captured_prompts_total{{{S}}}[{RATE}]))", "captured"),
            ),
            lines(
                "Not captured",
                "Prompts per second: the queue was full, they were too large, or Kafka did not take them.",
                "cps",
                Query(
                    f"sum by (reason) (rate(tao_gateway_capture_dropped_prompts_total{{{S}}}[{RATE}]))", "{{reason}}"
                ),
                Query(f"sum(rate(tao_gateway_capture_failed_prompts_total{{{S}}}[{RATE}]))", "failed"),
                colors={"failed": RED},
            ),
            lines(
                "Waiting for Kafka",
                "Prompts in each gateway's queue; at [gateway] capture_queue more are dropped.",
                "none",
                Query(f"tao_gateway_capture_queue_prompts{{{S}}}", "{{instance}}"),
                decimals=0,
            ),
        ],
    )


def _buffer() -> Row:
    write = "tao_buffer_write_seconds"
    return Row(
        "Buffer",
        [
            lines(
                "Prompts",
                "In the buffer, by what they may be used for.",
                "short",
                Query(f"max by (split) (tao_buffer_prompts{{{S}}})", "{{split}}"),
                Query(f"max(tao_buffer_clusters{{{S}}})", "clusters"),
                decimals=0,
                width=6,
                colors={"clusters": GREY},
            ),
            lines(
                "Fresh prompts",
                "For training and for the gate: in no round yet.",
                "short",
                Query(f"max by (split) (tao_buffer_available_prompts{{{S}}})", "{{split}}"),
                decimals=0,
                width=6,
            ),
            lines(
                "Disk",
                "The buffer's file, free space, and the level below which intake stops. Alert TaoBufferDiskLow.",
                "bytes",
                Query(f"max(tao_buffer_file_bytes{{{S}}})", "file"),
                Query(f"min(tao_buffer_free_disk_bytes{{{S}}})", "free"),
                Query(f"max(tao_buffer_min_free_disk_bytes{{{S}}})", "stops below"),
                width=6,
                colors={"stops below": RED, "free": GREEN, "file": BLUE},
            ),
            lines(
                "Writes",
                "Seconds per batch: median and 95 %.",
                "s",
                Query(quantile(0.5, write), "median"),
                Query(quantile(0.95, write), "95 %"),
                width=6,
            ),
        ],
    )


def _process() -> Row:
    none = otherwise("vector(0)", "sink", "no sink configured")
    pending = f"sum by (sink) (tao_notification_pending_entries{{{S}}})"
    return Row(
        "The daemon itself",
        [
            lines(
                "Event loop is late",
                "95 % of wake-ups of each process are late by at most this. Above 0.1 s something holds it up.",
                "s",
                Query(quantile(0.95, "tao_process_event_loop_lag_seconds", "job"), "{{job}}"),
                width=6,
            ),
            lines(
                "Events that wait",
                "For the one task that owns the state. Above a few, every verb waits, undo too.",
                "none",
                Query(f"max(tao_daemon_mailbox_events{{{S}}})", "events"),
                decimals=0,
                width=6,
            ),
            lines(
                "Control API",
                "Requests per second by class of status.",
                "reqps",
                Query(f"sum by (status) (rate(tao_control_requests_total{{{S}}}[{RATE}]))", "{{status}}"),
                width=6,
                colors={"2xx": GREEN, "4xx": YELLOW, "5xx": RED},
            ),
            lines(
                "Notifications that wait",
                "Entries of the journal that each sink has not been told of. Alert TaoNotificationsFailing; "
                "TaoNotificationsRefused for events that a sink will not take.",
                "none",
                Query(f"{pending} or on() {none}", "{{sink}}"),
                steps=True,
                decimals=0,
                width=6,
            ),
        ],
    )
