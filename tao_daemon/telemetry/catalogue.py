"""Every metric there is, by room, and the page of the documentation that lists them.

Pure but for `python -m tao_daemon.telemetry.catalogue`, which prints the page: docs/metrics.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tao_daemon.clients import process_metrics
from tao_daemon.domain import gateway_metrics
from tao_daemon.domain.metrics import Family, Kind, Label
from tao_daemon.telemetry import control, intake, learning, rollout_families, rounds, sampling, scoring, serving


@dataclass(frozen=True, slots=True)
class Room:
    """Metrics that are looked at together. Their names begin with one of the `prefixes`."""

    title: str
    prefixes: tuple[str, ...]
    text: str


ROOMS = (
    Room("Every process", ("tao_build", "tao_process"), "The daemon and each gateway process expose these."),
    Room("Intake", ("tao_intake",), "From Kafka into the buffer."),
    Room("Buffer", ("tao_buffer",), "The prompts that are kept. The disk is measured at every scrape."),
    Room("Sampling", ("tao_sampling",), "Completions, and how live requests are spared while they are sampled."),
    Room("Scoring", ("tao_scoring",), "Rewards without labels."),
    Room("Learning", ("tao_learning",), "The training of adapters, as the child process reports it."),
    Room("Evaluation", ("tao_evaluation",), "The gate's verdicts. The figures are of the latest gate."),
    Room("Rounds", ("tao_round",), "Sampling, scoring, training and evaluating, one round after the other."),
    Room("Rollout", ("tao_rollout",), "What serves, who knows, and the delivery of one adapter."),
    Room("Model servers", ("tao_serving",), "The daemon's calls to vLLM, and the state of every replica."),
    Room("Daemon, journal, control API", ("tao_daemon", "tao_journal", "tao_control"), "The daemon's own business."),
    Room("Notifications", ("tao_notification",), "Lifecycle events to the sinks of `[events]`."),
    Room("Gateway", ("tao_gateway",), "Live requests, counted by each gateway process for itself."),
)
DAEMON: tuple[Family, ...] = (
    *process_metrics.FAMILIES,
    *intake.FAMILIES,
    *sampling.FAMILIES,
    *scoring.FAMILIES,
    *learning.FAMILIES,
    *rounds.FAMILIES,
    *rollout_families.FAMILIES,
    *serving.FAMILIES,
    *control.FAMILIES,
)
"""What GET /metrics of the control API exposes."""
GATEWAY: tuple[Family, ...] = (*process_metrics.FAMILIES, *gateway_metrics.FAMILIES)
"""What a gateway process exposes."""
STANDARD = ("process_", "python_")
"""Beginnings of the names that come from Prometheus's client library."""

_HEAD = """\
# Metrics

<!-- Written by `python -m tao_daemon.telemetry.catalogue > docs/metrics.md`; a test compares. -->

| process | scrape |
|---|---|
| daemon | `GET /metrics` on `control.port` (8090), without a token |
| gateway, one process | `GET /metrics` on `gateway.port` (8080), or on `gateway.metrics_port` if that is set |
| gateway, `gateway.processes = N` | `GET /metrics` on `gateway.metrics_port` to `gateway.metrics_port + N - 1`, \
on `gateway.host` |

Gateway processes share `gateway.port`, so that a scrape of it would reach any one of them: with several, it answers
scrapes with 404, and each process is a target of its own. With `processes = 4` and `metrics_port = 9101`:

```yaml
scrape_configs:
  - job_name: tao-daemon
    static_configs:
      - targets: [127.0.0.1:8090]
  - job_name: tao-gateway
    static_configs:
      - targets: [127.0.0.1:9101, 127.0.0.1:9102, 127.0.0.1:9103, 127.0.0.1:9104]
```

A process that died comes back on its port with counters from 0, as `rate()` and `increase()` expect. Sum over
processes in the query: `sum(rate(tao_gateway_requests_total[5m])) by (kind, status)`.

What to know when writing a query or an alert:

- Names are `tao_<room>_<noun>_<unit>`; counters end in `_total`. Units are seconds, bytes, ratios (0 to 1, or a
  quotient), nats, tokens, and counted things.
- Every series whose labels have a fixed set of values is there from the start: nothing is absent until it first goes
  wrong. One that is named for something configured (a sink, a strategy, a replica) is there once that was first used.
- A measurement is NaN until it is first made. `<`, `>` and `==` with NaN are false: no alert fires on it.
- A timestamp is 0 until the first time: write `time() - (x > 0)`. Those of rounds and rollouts survive a restart as
  far as the state remembers them; the others begin again.
- No label is unbounded, and none holds text of a prompt. Adapters' names appear on `_info` metrics alone: join with
  `* on (instance) group_left (adapter) tao_rollout_incumbent_info`.
- A counter counts from the start of its process.

Besides, every process exposes `process_*` (resident memory, CPU seconds, open descriptors and their limit, start
time) and `python_*` (version, garbage collector) of Prometheus's client library. Watch `process_resident_memory_bytes`
and `process_open_fds / process_max_fds`; `process_start_time_seconds` changes when a process was restarted.
"""


def families() -> tuple[Family, ...]:
    """Every metric once."""
    return tuple(dict.fromkeys((*DAEMON, *GATEWAY)))


def room_of(family: Family) -> Room:
    return next(room for room in ROOMS if any(family.name.startswith(f"{prefix}_") for prefix in room.prefixes))


def page() -> str:
    """docs/metrics.md."""
    return "\n".join([_HEAD, *(_section(room) for room in ROOMS)])


def _section(room: Room) -> str:
    rows = "\n".join(_row(family) for family in families() if room_of(family) is room)
    head = "| metric | type | labels | unit | meaning | look at it when |\n|---|---|---|---|---|---|"
    return f"## {room.title}\n\n{room.text}\n\n{head}\n{rows}\n"


def _row(family: Family) -> str:
    labels = "<br>".join(_label(label) for label in family.labels)
    cells = (f"`{family.name}`", family.kind.value, labels, family.unit, _meaning(family), family.look)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _meaning(family: Family) -> str:
    return f"{family.help} NaN until known." if math.isnan(family.start) else family.help


def _label(label: Label) -> str:
    if label.values:
        return f"`{label.name}`: {', '.join(label.values)}"
    return f"`{label.name}`: one for each {label.one_for_each}"


def exposed_names(family: Family) -> Iterator[str]:
    """The names of its samples."""
    if family.kind is Kind.HISTOGRAM:
        yield from (f"{family.name}_{part}" for part in ("bucket", "sum", "count"))
    else:
        yield family.name


if __name__ == "__main__":
    print(page(), end="")
