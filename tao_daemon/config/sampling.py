"""TAO stage 1: how many completions, how they are asked for, and what that may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tao_daemon.config.values import OptionalServerUrl, Positive, Seconds, Section, SystemDigest
from tao_daemon.domain.completion import PLAIN


class Strategy(Section):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    """Name in reports and metrics."""
    type: Literal["instruction", "chain_of_thought", "few_shot", "structured", "template"] = "instruction"
    """instruction: adds one. chain_of_thought: thinks first, the answer is extracted; it asks for up to twice
    max_tokens, so the server may refuse a long prompt. few_shot: shows the best earlier completions of the same tenant.
    structured: decoding constrained to a schema. template: your own text."""
    instruction: str = ""
    """instruction, chain_of_thought: appended to the system message, or put before a bare prompt; chain_of_thought has
    one of its own when empty."""
    template: str = ""
    """template: what takes the place of the last user message, with {prompt} where that message goes."""
    answer: str = "after:Answer:"
    """chain_of_thought: the extractor that finds the answer in the completion."""
    examples: Positive = 2
    """few_shot: completions of other prompts that are shown."""
    schema_file: Path | None = None
    """structured: a JSON Schema file; the request's own response_format when left out."""
    completions: Positive = 2
    """Completions per prompt that are asked this way."""
    temperature: Annotated[float, Field(gt=0.0, le=2.0)] = 1.0
    """Of these completions; a lower one finds what the model is surer of. Plain ones are always sampled at 1."""
    match_system_sha256: SystemDigest | None = None
    """Only for prompts with this SHA-256 of their system messages, as of a scorer's match."""

    @model_validator(mode="after")
    def _complete(self) -> Strategy:
        if self.name == PLAIN:
            raise ValueError(f"{PLAIN!r} names the prompts that are asked as received; give the strategy another name")
        if self.type == "instruction" and not self.instruction:
            raise ValueError("a strategy of type instruction needs instruction")
        if self.type == "template" and "{prompt}" not in self.template:
            raise ValueError("a strategy of type template needs template, with {prompt} in it")
        return self


class Sampling(Section):
    endpoint: OptionalServerUrl = ""
    """Base URL of a vLLM for sampling alone, the best next to production; "" samples on the serving replicas."""
    completions: Annotated[int, Field(ge=2)] = 8
    """Completions per plain prompt."""
    first_completions: Annotated[int, Field(ge=0)] = 0
    """Ask for so many plain completions first, 2 at least, and stop there when their rewards do not differ; 0 asks for
    all at once. Only where every scorer of a prompt scores an answer by itself and at no cost."""
    most_completions: Annotated[int, Field(ge=0)] = 0
    """With first_completions: plain completions that a prompt may have while its rewards differ; 0: `completions`."""
    strategies: tuple[Strategy, ...] = ()
    """Exploration: the same prompt, asked in another way ([[sampling.strategies]])."""
    max_tokens: Positive = 512
    """Length limit of a completion, in tokens, unless the request sets a smaller one."""
    concurrent_prompts: Positive = 128
    """Prompts in flight at once, as far as the servers' queues have room for them."""
    max_waiting_requests: Annotated[int, Field(ge=0)] = 8
    """Sampling pauses while the server's own queue is longer (vllm:num_requests_waiting)."""
    live_slowdown: Annotated[float, Field(ge=0.0)] = 2.0
    """How many times its usual 99th percentile the gateways' latency may reach while sampling shares their servers; 0:
    no limit. It needs gateways that report: without them only max_waiting_requests holds sampling back. Where their
    usual is unknown, as after a restart, sampling is held for about a minute to learn it, and again every ten minutes
    while fewer than 50 answers came."""
    timeout_seconds: Seconds = 300.0
    """Deadline of one request."""
    phase_timeout_seconds: Seconds = 14_400.0
    """Deadline of a whole sampling or answering pass. A round goes on with what was sampled by then, if that is at
    least `training.min_groups` and the servers answer."""

    @model_validator(mode="after")
    def _possible(self) -> Sampling:
        if 0.0 < self.live_slowdown < 1.0:
            raise ValueError("live_slowdown is below 1, and no sampling makes answers faster; set 1 or more, or 0")
        if self.first_completions == 1:
            raise ValueError("first_completions is 1, and one reward alone cannot differ; set 2 or more, or 0")
        if self.first_completions > self.completions:
            raise ValueError(f"first_completions ({self.first_completions}) exceeds completions ({self.completions})")
        if self.most_completions and not self.first_completions:
            raise ValueError(
                f"most_completions ({self.most_completions}) does nothing without first_completions; set it, too"
            )
        if self.most_completions and self.completions > self.most_completions:
            raise ValueError(f"most_completions ({self.most_completions}) is below completions ({self.completions})")
        return self
