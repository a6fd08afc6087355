"""Who is told what happens: a Kafka topic, webhooks."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tao_daemon.config.values import Seconds, Secret, SecretUrl, Section
from tao_daemon.domain.lifecycle import TYPES


class Webhook(Section):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    """In metrics, in logs, and for remembering what was delivered."""
    url: SecretUrl
    """Where it is posted to, as env:NAME or file:PATH: whoever knows such an address may post there. It
    holds no user or password."""
    format: Literal["slack", "cloudevents"] = "slack"
    """slack: a message for people. cloudevents: structured JSON, with X-Tao-Signature when there is a secret."""
    types: Annotated[tuple[str, ...], Field(min_length=1)] = ("*",)
    """Patterns of event types, such as "rollout.*"."""
    timeout_seconds: Seconds = 5.0
    """Deadline of one request."""
    secret: Secret = None
    """Signs each request (HMAC-SHA256 of the body): env:NAME or file:PATH; for format = "cloudevents"."""

    @field_validator("types")
    @classmethod
    def _known(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in types:
            if not any(fnmatchcase(known, pattern) for known in TYPES):
                raise ValueError(f"{pattern!r} matches no event type; there are {', '.join(TYPES)}")
        return types

    @model_validator(mode="after")
    def _signed(self) -> Webhook:
        if self.secret is not None and self.format == "slack":
            raise ValueError('Slack checks no signature: leave `secret` out, or set format = "cloudevents"')
        return self


class Events(Section):
    source: Annotated[str, Field(pattern=r"^[!-~]+$")] = "tao-daemon"
    """`source` of every CloudEvent, a URI reference; give each daemon its own."""
    topic: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{0,249}$")] = ""
    """Kafka topic that events go to, on the brokers of [kafka]; "" for none."""
    webhooks: tuple[Webhook, ...] = ()
    """Addresses that events are posted to ([[events.webhooks]])."""

    @model_validator(mode="after")
    def _told_apart(self) -> Events:
        names = ["kafka", *(webhook.name for webhook in self.webhooks)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f'names of webhooks must be unique, and "kafka" is the topic; {twice[0]!r} is used twice')
        return self
