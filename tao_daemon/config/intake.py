"""The process, where prompts come from, and what is kept of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tao_daemon.config.values import Positive, Seconds, Secret, Section


class Daemon(Section):
    data_dir: Path = Path("./data")
    """Everything the daemon keeps: tao.duckdb, control.db, rounds/, adapters/, routes.json."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged. Logs are JSON lines on stderr and never hold prompt text."""
    shutdown_seconds: Seconds = 20.0
    """How long a clean stop may take after SIGTERM before what is left is killed."""


class Kafka(Section):
    enabled: bool = True
    """False for a buffer that is only filled by `tao-daemon buffer import`."""
    bootstrap_servers: Annotated[tuple[str, ...], Field(min_length=1)] = ("127.0.0.1:9092",)
    """host:port of the brokers."""
    topic: str = "prompts"
    """Topic with the prompt records."""
    dead_letter_topic: str = "prompts.dead-letter"
    """Topic for records that cannot become prompts, with headers that say why and from where."""
    consumer_group: str = "tao-daemon"
    """Offsets are committed under this name for lag tools only; the buffer's own offsets are authoritative."""
    start: Literal["earliest", "latest"] = "earliest"
    """Where to begin in a partition that this buffer has never read."""
    max_batch_records: Positive = 2000
    """Records per transaction, at most."""
    max_wait_seconds: Seconds = 0.5
    """How long a small batch waits for more records."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Transport security towards the brokers."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """SASL mechanism, with SASL_PLAINTEXT or SASL_SSL."""
    sasl_username: str | None = None
    """SASL user."""
    sasl_password: Secret = None
    """SASL password: env:NAME or file:PATH."""
    ssl_cafile: Path | None = None
    """CA certificates in PEM, with SSL or SASL_SSL."""


class Buffer(Section):
    max_prompt_bytes: Positive = 65_536
    """A record larger than this goes to the dead-letter topic."""
    held_out_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Share of near-duplicate clusters kept from training for the gate."""
    near_duplicate_similarity: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7
    """Estimated Jaccard similarity of character shingles from which two prompts are one cluster."""
    min_free_disk_mib: Annotated[int, Field(ge=0)] = 512
    """Intake pauses below this much free space in data_dir."""
    max_attempts: Positive = 3
    """How many rounds that failed, were rejected or inconclusive a training prompt may take part in. Cancelled ones and
    those that failed for want of a server, or because it refused everything, do not count."""
