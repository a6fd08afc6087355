"""The exception tree. Every message names the thing, the value and the remedy.

TaoError
├── ConfigError          a key of config.toml is wrong
├── RecordError          a Kafka record or an import line cannot be a prompt
├── PromptStoreError     the DuckDB buffer cannot do what was asked
├── UpstreamError        a server we speak HTTP to failed
│   └── UpstreamTimeout  … by not answering in time
├── PassTimeout          a pass over prompts did not end by its deadline
├── NothingSampled       a model server refused a whole pass
├── AdapterError         an adapter is not what it claims to be
│   └── ServerUnfit      … or no fault of its: the server cannot serve adapters
├── TrainingError        the trainer failed
├── InstanceError        another process owns the data directory
├── JournalError         the journal is broken or was tampered with
└── ArchiveError         a round's artefact is damaged or cannot be read
"""

from __future__ import annotations


class TaoError(Exception):
    """Base of every error that a user can meet."""


class ConfigError(TaoError):
    """A configuration key is missing, unknown or has a value it cannot have."""


class RecordError(TaoError):
    """A record cannot become a prompt. `code` is a short, bounded word for metrics and headers."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class PromptStoreError(TaoError):
    """The prompt buffer refused or failed an operation."""


class UpstreamError(TaoError):
    """A server answered with an error or not at all. `status` is None when there was no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_denial(self) -> bool:
        """The server does not know what is asked for, or us: it may have restarted without the adapter, or have
        another key. That says nothing of the request, and other servers may know better."""
        return self.status in (401, 403, 404)


class UpstreamTimeout(UpstreamError):
    """A server did not answer before the deadline."""


class PassTimeout(TaoError):
    """Prompts were left when the deadline of a whole pass came. No outage: to wait and try again would be a second
    deadline."""


class NothingSampled(TaoError):
    """A model server answered a whole pass with refusals, or with what cannot be used. No outage: it would again."""


class AdapterError(TaoError):
    """An adapter was refused: its files, format, lineage or behaviour are not as recorded."""


class ServerUnfit(AdapterError):
    """A model server is too old, or was started without what serving adapters needs."""


class TrainingError(TaoError):
    """The trainer ended without a usable artefact."""


class InstanceError(TaoError):
    """Another process holds the data directory."""


class JournalError(TaoError):
    """The journal cannot be read, or its hash chain is broken."""


class ArchiveError(TaoError):
    """An artefact of a round is missing where it must be, damaged, or cannot be read."""
