"""One training as read from its directory: what trains, what chooses the checkpoint, and whose work it continues.

Read-only; no torch. Raises TrainingError or ValueError with what is wrong, before anything heavy.

spec.json + batch.jsonl → checks → dev split → selection
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tao_daemon.domain.completion import ScoredGroup
from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning.advantage import Selection, select
from tao_daemon.learning.checkpoints import check_base, check_start, context_tokens
from tao_daemon.learning.contract import (
    ALGORITHMS,
    BATCH_FILE,
    SPEC_FILE,
    TrainingSpec,
    decode_batch,
    decode_spec,
    encode_spec,
)
from tao_daemon.learning.dev_split import DevGroup, split
from tao_daemon.learning.objectives.registry import build_objective


@dataclass(frozen=True, slots=True)
class Job:
    """All that a training needs but a place to work."""

    spec: TrainingSpec
    selection: Selection
    dev: tuple[DevGroup, ...] = ()
    """Not trained on in this round; empty where there are too few."""
    digest: str = ""
    """Of everything that decides the outcome: a checkpoint of another digest is another training's."""

    @property
    def sequences(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Prompt and completion of every sample, of the dev groups too."""
        training = [(g.prompt_token_ids, s.token_ids) for g in self.selection.groups for s in g.samples]
        return training + [(g.prompt_token_ids, s.token_ids) for g in self.dev for s in g.samples]


def read_job(directory: Path) -> Job:
    """Raises TrainingError when the base, the start adapter or the batch cannot be trained with."""
    spec = decode_spec((directory / SPEC_FILE).read_text(encoding="utf-8"))
    if spec.algorithm not in ALGORITHMS:
        raise TrainingError(
            f"algorithm {spec.algorithm!r} is unknown to this worker; set training.algorithm to one of "
            f"{', '.join(ALGORITHMS)}"
        )
    base = Path(spec.base_model)
    check_base(base)
    if spec.start_adapter is not None:
        check_start(Path(spec.start_adapter), rank=spec.rank, alpha=spec.alpha)
    raw = (directory / BATCH_FILE).read_bytes()
    groups = decode_batch(raw.decode("utf-8").splitlines())
    limit = min(spec.max_sequence_tokens, context_tokens(base) or spec.max_sequence_tokens)
    selection, dev = sides(spec, groups, limit)
    if len(selection.groups) < _fewest(spec):
        why = ", ".join(f"{n} {reason}" for reason, n in sorted(selection.dropped_groups.items())) or "none dropped"
        raise TrainingError(
            f"{len(selection.groups)} of {len(groups)} groups can teach ({why}), training.min_groups is "
            f"{spec.min_groups}; check the scorers, raise sampling.completions or round.prompts"
        )
    return Job(spec, selection, dev, _digest(spec, raw))


def sides(spec: TrainingSpec, groups: Sequence[ScoredGroup], limit: int) -> tuple[Selection, tuple[DevGroup, ...]]:
    """What trains of the groups, and what chooses the checkpoint. `limit`: tokens of prompt plus completion."""
    objective = build_objective(spec, groups)
    parts = split(groups, spec.dev_fraction, min_spread=spec.min_spread, max_sequence_tokens=limit)
    selection = select(parts.training, objective, min_spread=spec.min_spread, max_sequence_tokens=limit)
    if not parts.dev or len(selection.groups) >= _fewest(spec):
        return selection, parts.dev
    # Rather a training without a dev split than none.
    return select(groups, objective, min_spread=spec.min_spread, max_sequence_tokens=limit), ()


def _fewest(spec: TrainingSpec) -> int:
    return max(spec.min_groups, 1)


def _digest(spec: TrainingSpec, batch: bytes) -> str:
    """Equal where a training may go on from the checkpoints of another: without what changes no outcome."""
    outcome = replace(spec, resume_from=(), processes=0, checkpoint_seconds=1.0, memory_headroom=0.0)
    digest = hashlib.sha256(encode_spec(outcome).encode())
    digest.update(batch)
    return digest.hexdigest()
