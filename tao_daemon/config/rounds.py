"""When a round runs and how large it is, and the verdict on what it made."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from tao_daemon.config.crontab import checked
from tao_daemon.config.scorers import ScorerConfig
from tao_daemon.config.values import Fraction, Positive, Section


class Round(Section):
    prompts: Positive = 64
    """Training prompts per round."""
    min_new_prompts: Annotated[int, Field(ge=0)] = 500
    """Start a round when this many fresh training prompts wait; 0 turns this trigger off."""
    schedule: Annotated[str, AfterValidator(checked)] = ""
    """Start a round by the calendar: a crontab line such as "0 3 * * mon-fri" in UTC, or "" for none."""
    min_interval_seconds: Annotated[float, Field(ge=0.0)] = 0.0
    """Least time between the end of a round and the next automatic start."""
    retry_seconds: Annotated[float, Field(ge=0.0)] = 60.0
    """Least time between the end of a failed round and the next automatic start."""
    outage_seconds: Annotated[float, Field(ge=0.0)] = 3600.0
    """How long a round waits for a model server that does not answer before it fails, counted from the first failure
    since it last got further. Where only some prompts find no answer, sampling then ends without them."""
    rehearsal_fraction: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    """Earlier training prompts that are asked again, as a fraction of `prompts`, against forgetting."""
    carried_rounds: Annotated[int, Field(ge=0, le=8)] = 1
    """Latest rounds that the gate refused whose scored completions train again beside a round's own, while the same
    incumbent serves under the same configuration; 0 trains on a round's own alone."""
    tenant_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Largest fraction of `prompts` that one tenant may have when there are several."""
    max_attempts: Positive = 5
    """Tries at one phase of a round: a restart of the daemon during the last one marks the round failed."""
    seed: int = 0
    """Base of every random choice; the round's number is mixed in."""


class Gate(Section):
    prompts: Positive = 200
    """Held-out prompts per gate; fixed in advance."""
    min_prompts: Positive = 200
    """With fewer that its scorers judge, within `tenant_share`, no round starts by itself, and one that was asked for
    fails before anything is sampled. None is used up then."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Two-sided confidence of the bootstrap intervals."""
    resamples: Annotated[int, Field(ge=1000)] = 10_000
    """Bootstrap resamples."""
    min_differing_pairs: Annotated[int, Field(ge=1)] = 10
    """Pairs whose scores must differ before a gain counts."""
    max_length_ratio: Annotated[float, Field(gt=0.0)] = 1.2
    """Largest mean answer length of the candidate relative to the incumbent."""
    max_truncation_increase: Fraction = 0.02
    """Largest increase of the share of truncated answers."""
    max_refusal_increase: Fraction = 0.05
    """Largest increase of the share of answers that refuse (an English opening such as "I cannot")."""
    max_degenerate_increase: Fraction = 0.02
    """Largest increase of the share of answers that are empty or repeat themselves without end."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """Temperature of evaluation answers; 0 is greedy."""
    scorers: tuple[ScorerConfig, ...] = ()
    """Who scores the answers of a gate; those of training when empty."""
    divergence_prompts: Annotated[int, Field(ge=0)] = 64
    """Held-out prompts on whose sampled answers the distance from the base model is measured; 0 measures none."""
    max_length_ratio_to_base: Annotated[float, Field(gt=0.0)] = 1.5
    """Largest mean length of a candidate's sampled answers relative to the base model's: caps what rounds add up to."""
    max_kl_to_base_per_token: Annotated[float, Field(gt=0.0)] = 2.0
    """Largest KL divergence of a candidate from the base model, nats per token: caps what rounds add up to. On short
    answers a model that learned its task is at some tenths; a collapsed one may stay below 1.2."""
