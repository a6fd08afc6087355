"""The whole file, read and checked. Unknown keys are errors that name the nearest right one."""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import (
    BaseModel,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from tao_daemon.config.delivery import Control, Gateway, Rollout, Serving
from tao_daemon.config.events import Events
from tao_daemon.config.intake import Buffer, Daemon, Kafka
from tao_daemon.config.rounds import Gate, Round
from tao_daemon.config.sampling import Sampling
from tao_daemon.config.scorers import ScorerConfig
from tao_daemon.config.training import Training
from tao_daemon.config.values import SecretsOf, Section
from tao_daemon.domain.errors import ConfigError


class Config(Section):
    """The whole file."""

    daemon: Daemon = Daemon()
    kafka: Kafka = Kafka()
    buffer: Buffer = Buffer()
    round: Round = Round()
    sampling: Sampling = Sampling()
    scorers: tuple[ScorerConfig, ...] = ()
    training: Training = Training()
    gate: Gate = Gate()
    serving: Serving = Serving()
    rollout: Rollout = Rollout()
    gateway: Gateway = Gateway()
    control: Control = Control()
    events: Events = Events()

    @field_validator("*", mode="wrap")
    @classmethod
    def _told_by_section(cls, value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        if info.context is not None:
            info.context.section = info.field_name
        return read(value)

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        names = [s.name for s in self.scorers] + [s.name for s in self.sampling.strategies]
        names += [s.name for s in self.gate.scorers if s not in self.scorers]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"names of scorers and strategies must be unique; {', '.join(twice)} is used twice")
        if self.gate.min_prompts > self.gate.prompts:
            raise ValueError(f"gate.min_prompts ({self.gate.min_prompts}) exceeds gate.prompts ({self.gate.prompts})")
        if self.training.min_groups > self.round.prompts:
            raise ValueError(
                f"training.min_groups ({self.training.min_groups}) exceeds round.prompts ({self.round.prompts}): no "
                "round could train"
            )
        gate = self.gate.scorers or self.scorers
        if gate and all(scorer.type == "agreement" for scorer in gate):
            raise ValueError(
                "the gate has no scorer but agreement, which says nothing of two answers; add another one to "
                "[[gate.scorers]]"
            )
        if self.serving.in_place_alias and (self.rollout.canary_fractions or self.rollout.bake_conversations):
            raise ValueError(
                "serving.in_place_alias delivers without a gateway, so nobody splits or counts traffic: set "
                "rollout.canary_fractions = [] and rollout.bake_conversations = 0"
            )
        if self.serving.in_place_alias == self.serving.base_model:
            raise ValueError("serving.in_place_alias must not be serving.base_model: vLLM refuses that name")
        if self.training.rank > self.serving.max_rank:
            raise ValueError(
                f"training.rank ({self.training.rank}) exceeds serving.max_rank ({self.serving.max_rank}); "
                "vLLM would refuse the adapter: raise --max-lora-rank and serving.max_rank, or lower the rank"
            )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of every effective value but secrets: which settings made an adapter."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


ALL_SECTIONS = tuple(Config.model_fields)


def load_config(path: Path, *, secrets_of: Collection[str] = ALL_SECTIONS) -> Config:
    """Read and check a config file. Raises ConfigError with one line per problem.

    `secrets_of`: the sections whose secrets are read. What steers a daemon needs none, and works where they are not.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; pass --config FILE") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    return parse_config(data, source=str(path), secrets_of=secrets_of)


def parse_config(
    data: Mapping[str, Any], *, source: str = "config", secrets_of: Collection[str] = ALL_SECTIONS
) -> Config:
    """Check a parsed file. Raises ConfigError with one line per problem."""
    try:
        return Config.model_validate(dict(data), context=SecretsOf(secrets_of))
    except ValidationError as error:
        lines = [_explain(dict(problem)) for problem in error.errors(include_url=False, include_input=False)]
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None


def _explain(problem: dict[str, Any]) -> str:
    location = [str(part) for part in problem["loc"]]
    model, path = _place(location)
    key = ".".join(path) or "(file)"
    if problem["type"] == "extra_forbidden":
        known = list(model.model_fields)
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(sorted(known))}"
        return f"unknown key {key!r}; {hint}"
    if problem["type"] == "missing":
        kind = _tag(model)
        return f"{'.'.join(path[:-1])}: {f'type {kind} ' if kind else ''}needs {path[-1]}"
    return f"{key}: {str(problem['msg']).removeprefix('Value error, ')}"


def _place(location: Sequence[str]) -> tuple[type[BaseModel], list[str]]:
    """The section that holds the last part of `location`, and the path as the file has it: pydantic puts the tag of a
    union, the `type` of a scorer, between a list's index and the key."""
    model: type[BaseModel] = Config
    kinds: list[type[BaseModel]] = []
    path: list[str] = []
    for part in location:
        tagged = next((kind for kind in kinds if len(kinds) > 1 and _tag(kind) == part), None)
        if tagged is not None:
            model, kinds = tagged, []
            continue
        path.append(part)
        if not part.isdigit() and part in model.model_fields and part != location[-1]:
            kinds = _sections_of(model.model_fields[part].annotation)
            model = kinds[0] if kinds else model
    return model, path


def _tag(kind: type[BaseModel]) -> str | None:
    field = kind.model_fields.get("type")
    return next(iter(get_args(field.annotation)), None) if field else None


def _sections_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for arg in get_args(annotation) for found in _sections_of(arg)]
