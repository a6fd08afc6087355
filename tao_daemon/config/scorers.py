"""TAO stage 2: who says what a good answer is. One class per type of `[[scorers]]`, each with its own keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tao_daemon.config.values import (
    Fraction,
    HeaderSecret,
    OptionalServerUrl,
    Positive,
    Seconds,
    Section,
    ServerUrl,
    SystemDigest,
)


class Match(Section):
    tenant: str | None = None
    """Only prompts with this `tenant` header."""
    model: str | None = None
    """Only prompts whose request names this model."""
    system_sha256: SystemDigest | None = None
    """Only prompts with this SHA-256 of their system messages (the texts, a line each); "" for those without."""


class _Scorer(Section):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    """Name in reports and metrics."""
    match: Match = Match()
    """Which prompts it applies to; all when empty."""
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    """Weight among the scorers of a prompt."""
    timeout_seconds: Seconds = 5.0
    """Deadline for one answer; over it, the answer's group is dropped and counted."""

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name == "none":
            raise ValueError("'none' is what metrics say of prompts without a scorer; give the scorer another name")
        return name


class JsonSchemaScorer(_Scorer):
    """Graded by how far the answer meets the schema."""

    type: Literal["json_schema"]
    schema_file: Path
    """A JSON Schema file."""


class RegexScorer(_Scorer):
    """1 on a full match, else 0."""

    type: Literal["regex"]
    pattern: str
    """The answer must match it as a whole, surrounding white space aside."""


class PythonScorer(_Scorer):
    """Your own function."""

    type: Literal["python"]
    callable: str
    """"package.module:function", or the name of an entry point in the group `tao_daemon.scorers`; called with
    (request: dict, answer: str), returns a number in [0, 1]."""


class MatchScorer(_Scorer):
    """Compares what the answer says with what the request says it must."""

    type: Literal["match"]
    expected: str
    """Extractor that finds the expected value in the request; prompts without one are not for this scorer. There are
    whole, last_line, last_number, boxed, code, after:TEXT, json:/pointer and regex:PATTERN. In a request they read the
    last user message, but json:/pointer points into the request itself."""
    answer: str = "whole"
    """Extractor that finds the given value in the answer."""
    mode: Literal["exact", "fuzzy"] = "exact"
    """exact: 1 when equal but for case and white space. fuzzy: the similarity of both, in [0, 1]."""


class MathScorer(_Scorer):
    """1 when the answer's number equals the value of an expression in the request."""

    type: Literal["math"]
    expected: str
    """Extractor that finds the expression in the request, such as "regex:What is ([^?]{1,200})\\?"; prompts without one
    that has a value are not for this scorer."""
    answer: str = "last_number"
    """Extractor that finds the number in the answer."""
    tolerance: Annotated[float, Field(ge=0.0)] = 1e-9
    """Largest relative difference that still counts as equal."""


class SqlScorer(_Scorer):
    """Graded by whether the query parses, runs on the fixture, and finds anything."""

    type: Literal["sql"]
    fixture: Path
    """SQL script that makes the tables, for DuckDB; run in memory, in a process of its own, without access to files or
    network."""
    answer: str = "code"
    """Extractor that finds the query in the answer."""


class JudgeScorer(_Scorer):
    """A language model ranks the completions of a prompt, in two orders."""

    type: Literal["judge"]
    url: ServerUrl
    """Base URL of an OpenAI-compatible server, without /v1."""
    model: str
    """Its name of the model that judges."""
    api_key: HeaderSecret = None
    """Sent as a bearer token."""
    rubric: str = "Which answer is more correct, more helpful, and follows the instructions better?"
    """What makes an answer better."""
    timeout_seconds: Seconds = 60.0
    """Deadline for one reply; over it, the group is dropped and counted."""
    attempts: Positive = 3
    """Askings until the judge's reply can be read; then the group is dropped and counted."""
    concurrent_requests: Positive = 8
    """Requests in flight at once."""
    max_characters: Annotated[int, Field(ge=1_000)] = 32_000
    """Characters of request and answers in one question; what is longer is cut in the middle, all alike."""
    reply_tokens: Positive = 1024
    """Longest reply, in tokens; a judge that thinks aloud needs more."""
    decoy_fraction: Fraction = 0.1
    """Groups into which a meaningless answer is planted that fools weak judges."""
    max_fooled: Fraction = 0.1
    """Share of planted answers that a judge may prefer to real ones. One that prefers more of the last 50 than chance
    explains (p < 0.002; with 0.1 three of the first three, or thirteen of fifty) is not trusted: its scoring fails, and
    only groups with a planted answer are put to it, until at least 20 since show a share that is allowed."""
    price_input: Annotated[float, Field(ge=0.0)] = 0.0
    """Price of a million prompt tokens, in your currency; for metrics and reports."""
    price_output: Annotated[float, Field(ge=0.0)] = 0.0
    """Price of a million completion tokens."""


class RewardModelScorer(_Scorer):
    """A reward model scores each answer."""

    type: Literal["reward_model"]
    url: OptionalServerUrl = ""
    """Base URL of a vLLM that serves the reward model (pooling or score API), without /v1."""
    model: str
    """Its name on that server; without url, the folder of a sequence classifier that transformers loads in a process
    of its own."""
    api: Literal["pooling", "score"] = "pooling"
    """Which of vLLM's APIs: /pooling of a reward model, /score of a cross-encoder."""
    api_key: HeaderSecret = None
    """Sent as a bearer token."""
    center: float = 0.0
    """The raw score that becomes 0.5."""
    scale: Annotated[float, Field(gt=0.0)] = 1.0
    """Raw scores are mapped by 1 / (1 + exp(-(raw - center) / scale))."""
    concurrent_requests: Positive = 8
    """Requests in flight at once."""


class AgreementScorer(_Scorer):
    """The share of a prompt's completions that give the same answer; only within a band of agreement."""

    type: Literal["agreement"]
    answer: str
    """Extractor that finds the value by which answers are the same or not."""
    low: Fraction = 0.3
    """Below this share of the commonest answer nobody knows: the group teaches nothing."""
    high: Fraction = 0.9
    """Above it everybody knows: the group teaches nothing."""

    @model_validator(mode="after")
    def _band(self) -> AgreementScorer:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) exceeds high ({self.high}), so that no group would teach anything")
        return self


ScorerConfig = Annotated[
    JsonSchemaScorer
    | RegexScorer
    | PythonScorer
    | MatchScorer
    | MathScorer
    | SqlScorer
    | JudgeScorer
    | RewardModelScorer
    | AgreementScorer,
    Field(discriminator="type"),
]
