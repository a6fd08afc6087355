"""The memory that training may use on this machine, and what it used.

Reads the kernel's files and asks the GPU; decides nothing.

base's files → shape; kernel or GPU → available → `memory.fit`
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning.contract import TrainingSpec
from tao_daemon.learning.divergence_contract import DivergenceSpec
from tao_daemon.learning.job import Job
from tao_daemon.learning.memory import Fit, Load, ModelShape, fit, fit_forward
from tao_daemon.learning.parallel import Ranks
from tao_daemon.learning.peft_policy import choose_dtype
from tao_daemon.learning.resuming import Manner

Available = Callable[[], int]
_KIB = 1024
_IS_VOCABULARY = re.compile(r"embed|lm_head|\bw[tp]e\b")
"""Names of matrices that get no adapter."""
_CGROUPS = Path("/sys/fs/cgroup")
logger = logging.getLogger(__name__)


def fitted(job: Job, ranks: Ranks, available: Available, before: Manner | None = None) -> tuple[TrainingSpec, Fit]:
    """The spec as it fits into the memory of the process that has least; as `before` where that still fits and
    is no emulation.

    Raises TrainingError when it does not fit in any way.
    """
    free = _least(available(), ranks, shared=not torch.cuda.is_available())
    if before is None:
        return _fitted(job, job.spec, free)
    # Where bfloat16 is emulated it is not gone on with.
    native = before.dtype == "float32" or choose_dtype("auto", _device()) is torch.bfloat16
    spec = replace(job.spec, dtype=before.dtype) if native else job.spec
    recomputed = "on" if before.checkpoint_activations else "off"
    same = replace(spec, micro_batch_tokens=before.micro_batch_tokens, gradient_checkpointing=recomputed)
    try:
        found = _fitted(job, same, free)
    except TrainingError:
        found = _fitted(job, spec, free)
    now = found[0]
    manner = (before.micro_batch_tokens, before.checkpoint_activations)
    if not native or (now.micro_batch_tokens, now.checkpoint_activations) != manner:
        logger.warning(
            "other memory or hardware than before the restart, numbers round otherwise",
            extra={"micro_batch_tokens": now.micro_batch_tokens, "recomputed": now.checkpoint_activations},
        )
    return found


def _fitted(job: Job, spec: TrainingSpec, free: int) -> tuple[TrainingSpec, Fit]:
    dtype = choose_dtype(spec.dtype, _device())
    found = fit(
        model_shape(Path(spec.base_model)),
        load_of(job, spec.micro_batch_tokens, torch.finfo(dtype).bits // 8),
        checkpointing=spec.gradient_checkpointing,
        available=free,
        headroom=spec.memory_headroom,
    )
    changed = replace(
        spec,
        micro_batch_tokens=min(found.micro_batch_tokens, spec.micro_batch_tokens),
        checkpoint_activations=found.checkpoint_activations,
    )
    return changed, found


def measuring_fit(spec: DivergenceSpec, sizes: Sequence[int], available: int) -> Fit:
    """How answers of so many tokens with their prompts are measured in the memory there is. Raises TrainingError."""
    dtype = choose_dtype(spec.dtype, _device())
    total, longest = len(sizes) * max(sizes), max(sizes)  # padded
    load = Load(spec.micro_batch_tokens, longest, longest, 0, total, torch.finfo(dtype).bits // 8, spec.rank)
    return fit_forward(model_shape(Path(spec.base_model)), load, available=available, headroom=spec.memory_headroom)


def available_bytes() -> int:
    """Free on the GPU, or what the kernel and its control groups would still give this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return min([_kernel(Path("/proc/meminfo"), "MemAvailable"), *_group_rooms()])


def peak_bytes() -> int:
    """The most that this process has held: on the GPU where there is one, in main memory otherwise."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return _kernel(Path("/proc/self/status"), "VmHWM")  # getrusage counts what the parent held before exec, too


def model_shape(folder: Path) -> ModelShape:
    """From config.json and the headers of the safetensors files; no tensor is read."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config", config)
    hidden = int(text["hidden_size"])
    heads = int(text.get("num_attention_heads") or 1)
    shapes = [each for path in sorted(folder.glob("*.safetensors")) for each in _tensor_shapes(path)]
    tables = [shape for name, shape in shapes if len(shape) == 2 and _IS_VOCABULARY.search(name)]
    matrices = [shape for name, shape in shapes if len(shape) == 2 and not _IS_VOCABULARY.search(name)]
    return ModelShape(
        parameters=sum(math.prod(shape) for _, shape in shapes),
        linear_widths=sum(map(sum, matrices)),
        vocabulary=max((shape[0] for shape in tables), default=0),
        layers=int(text.get("num_hidden_layers") or 1),
        hidden=hidden,
        queries=heads * int(text.get("head_dim") or hidden // heads),
        intermediate=int(text.get("intermediate_size") or 4 * hidden),
    )


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _least(available: int, ranks: Ranks, *, shared: bool) -> int:
    """Every process has its own GPU; without one they share the machine."""
    place = ranks.place
    told = ranks.sum([float(available) if rank == place.rank else 0.0 for rank in range(place.count)])
    return int(min(told)) // (place.count if shared else 1)


def load_of(job: Job, micro_batch_tokens: int, number_bytes: int) -> Load:
    """What the training puts through the model."""
    training = [(len(g.prompt_token_ids), [len(s.token_ids) for s in g.samples]) for g in job.selection.groups]
    looked = [(len(g.prompt_token_ids), [len(s.token_ids) for s in g.samples]) for g in job.dev]
    looked += [(len(g.prompt_token_ids), [len(s.token_ids) for s in g.plain]) for g in job.selection.groups if g.plain]
    longest = max(prompt + max(completions) for prompt, completions in training + looked)
    return Load(
        micro_batch_tokens,
        longest,
        largest=_padded(training + looked),
        step=min(job.spec.groups_per_step, len(training)) * _padded(training),
        total=(len(training) + len(looked)) * _padded(training + looked),
        number_bytes=number_bytes,
        rank=job.spec.rank,
    )


def _padded(groups: Sequence[tuple[int, list[int]]]) -> int:
    """Tokens of a row, where these groups lie in one batch: prompts and completions padded to the longest."""
    return max(prompt for prompt, _ in groups) + max(sum(completions) for _, completions in groups)


def _tensor_shapes(path: Path) -> Iterator[tuple[str, list[int]]]:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    for name, entry in header.items():
        if name != "__metadata__":
            yield name, entry["shape"]


def _kernel(file: Path, name: str) -> int:
    for line in file.read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * _KIB
    raise OSError(f"{file} has no {name}")


def _group_rooms() -> Iterator[int]:
    """Room left in every control group that this process is in, of version 2 or 1; none for those without a limit."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            root = _CGROUPS / "memory"
        elif not controllers:
            names, root = ("memory.max", "memory.current", "inactive_file"), _CGROUPS
        else:
            continue
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(root) and (room := _room(group, *names)) is not None:
                yield room


def _room(group: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    try:
        most = (group / limit).read_text(encoding="ascii").strip()
        if not most.isdecimal():  # "max"
            return None
        used = int((group / usage).read_text(encoding="ascii"))
        counts = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(int(most) - used + int(counts.get(reclaimable, 0)), 0)
    except (OSError, ValueError):
        return None
