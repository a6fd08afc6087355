"""Into serving: the model servers, rollouts, gateways, the control API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tao_daemon.config.values import ClockTime, Fraction, HeaderSecret, Positive, Seconds, Section, ServerUrl
from tao_daemon.domain.rollout import NewerCandidate, RolloutMode

_MAX_PORT = 65_535


class PathMap(Section):
    local: Path
    """Directory prefix as the daemon sees it."""
    server: Path
    """The same directory as vLLM sees it."""


class Serving(Section):
    replicas: Annotated[tuple[ServerUrl, ...], Field(min_length=1)] = ("http://127.0.0.1:8000",)
    """Base URLs of the vLLM servers, without /v1. An adapter serves on all of them or on none."""
    base_model: str = "base"
    """Name under which vLLM serves the base model (--served-model-name)."""
    api_key: HeaderSecret = None
    """vLLM's --api-key: env:NAME or file:PATH."""
    in_place_alias: str = ""
    """Without a gateway: the name under which vLLM itself serves the adapter; needs vLLM 0.33. "" for gateways."""
    path_maps: tuple[PathMap, ...] = ()
    """Where vLLM sees data_dir/adapters, if elsewhere ([[serving.path_maps]])."""
    max_rank: Positive = 16
    """The servers' --max-lora-rank; a larger adapter is refused before any call."""
    load_timeout_seconds: Seconds = 60.0
    """Deadline of loading one adapter on one replica."""
    request_timeout_seconds: Seconds = 60.0
    """Deadline of other administrative calls."""
    drain_seconds: Annotated[float, Field(ge=0.0)] = 120.0
    """How long an adapter that left the routes stays loaded at most while requests are in flight on it; then it is
    unloaded all the same. Where answers take long, at least gateway.request_timeout_seconds."""
    lease_seconds: Seconds = 10.0
    """A gateway that has not reported for so long is taken for gone: nothing waits for it."""
    reconcile_seconds: Seconds = 5.0
    """How often what every replica has loaded is compared with what it should have."""
    keep_adapters: Positive = 10
    """Newest adapters whose files are kept, besides those in use and those that served last."""
    max_fingerprint_error: Annotated[float, Field(gt=0.0)] = 0.15
    """Largest mean absolute log-probability difference between server and trainer, nats per token."""


class Freeze(Section):
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = (
        "mon",
        "tue",
        "wed",
        "thu",
        "fri",
        "sat",
        "sun",
    )
    """Days on which the window begins."""
    start: ClockTime = "00:00"
    """HH:MM at which it begins, UTC."""
    end: ClockTime = "24:00"
    """HH:MM at which it ends, UTC; not after `start` means the next day."""


class Rollout(Section):
    mode: RolloutMode = RolloutMode.APPROVE
    """observe: shadow only, then tell. approve: a person lets it go past the shadow. auto: the evidence does."""
    newer_candidate: NewerCandidate = NewerCandidate.SUPERSEDE
    """supersede: rounds go on while a rollout waits for a person, and a newer candidate replaces it. wait: neither."""
    shadow_pairs: Positive = 64
    """Live prompts that both versions answered, scored, before the canary may begin."""
    shadow_pairs_max: Positive = 512
    """Shadow pairs per phase, at most: shadowing costs two answers each."""
    shadow_concurrency: Positive = 4
    """Shadow prompts in flight at once."""
    margin: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """How much worse a candidate's mean score may be and still be "not inferior"."""
    canary_fractions: Annotated[tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...], Field(max_length=20)] = (
        0.05,
        0.25,
        0.5,
    )
    """Share of conversations the candidate answers, step by step; empty goes from shadow to baking."""
    step_seconds: Annotated[float, Field(ge=0.0)] = 600.0
    """Least time of a canary step."""
    step_conversations: Annotated[int, Field(ge=0)] = 100
    """Conversations that the candidate must have answered in a step before the next one; 0 asks for no gateway."""
    bake_seconds: Annotated[float, Field(ge=0.0)] = 3600.0
    """How long the adapter answers everything, watched, before it is settled."""
    bake_conversations: Annotated[int, Field(ge=0)] = 200
    """Conversations it must have answered in that time; 0 asks for no gateway."""
    alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Probability, at most, that a candidate no worse is aborted from shadow to canary; the same again for baking."""
    relative_risk: Annotated[float, Field(ge=1.0)] = 1.25
    """How many times as often the candidate may fail, be slow or be cut off before that counts as worse."""
    max_error_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    """Share of the candidate's conversations that may meet an error, whatever the incumbent's."""
    evaluate_seconds: Seconds = 5.0
    """How often the evidence is looked at."""
    freeze: tuple[Freeze, ...] = ()
    """Windows in which nothing is advanced ([[rollout.freeze]]); aborting and undoing always work."""


class Gateway(Section):
    host: str = "127.0.0.1"
    """Address the gateway listens on."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port the gateway listens on; 0 takes a free one."""
    processes: Positive = 1
    """Processes that share the port."""
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """Port for GET /metrics alone. With several processes this is the first one's, process n has metrics_port + n, and
    the shared port answers no scrape. 0 for none: a single process answers scrapes on its port all the same."""
    public_model: str = "assistant"
    """The model name that clients use."""
    daemon_url: ServerUrl = "http://127.0.0.1:8090"
    """Control API that routes are long-polled from and reports go to."""
    daemon_token: HeaderSecret = None
    """Token for routes and reports (scope gateway): env:NAME or file:PATH; default: data_dir/control.token."""
    routes_file: Path | None = None
    """Last known routes, read at start and while the daemon is down; default: data_dir/routes.json."""
    report_seconds: Seconds = 1.0
    """How often a gateway reports its counters to the daemon."""
    conversation_header: str = "X-Conversation-Id"
    """Request header that identifies a conversation; without it, a hash of its first messages does."""
    tenant_header: str = "X-Tenant-Id"
    """Request header with the tenant, for captured prompts."""
    subject_header: str = "X-Subject-Id"
    """Request header with the person a prompt is about, for captured prompts, so that it can be forgotten."""
    capture: bool = False
    """Send prompts to kafka.topic, without ever delaying a request: all but those above buffer.max_prompt_bytes and
    those whose client opted out, by "store": false or the header X-Tao-Capture: off."""
    capture_fraction: Fraction = 1.0
    """Share of conversations that are captured."""
    capture_queue: Positive = 10_000
    """Prompts that may wait for Kafka; more are dropped and counted."""
    request_timeout_seconds: Seconds = 600.0
    """Deadline of a whole request; a stream must also move at least every 60 seconds."""
    max_body_bytes: Positive = 8_388_608
    """Largest request body."""

    @model_validator(mode="after")
    def _ports_of_their_own(self) -> Gateway:
        last = self.metrics_port + self.processes - 1
        if self.metrics_port and (self.metrics_port <= self.port <= last or last > _MAX_PORT):
            raise ValueError(
                f"metrics_port and processes take ports {self.metrics_port} to {last}; they must not include port "
                f"({self.port}), and end at {_MAX_PORT}"
            )
        return self


class Control(Section):
    host: str = "127.0.0.1"
    """Address of the control API; keep it on loopback."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8090
    """Port of the control API; 0 takes a free one."""
