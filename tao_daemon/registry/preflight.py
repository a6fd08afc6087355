"""What an adapter must be before any server sees it. Pure: each check returns its problems in words.

vLLM accepts adapters that it then ignores in part or as a whole, so everything it does not implement is
refused here (its own rules: vllm/lora/peft_helper.py). What no file can show, the fingerprint on the running
server does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tao_daemon.domain.adapter import Fingerprint
from tao_daemon.registry.tensors import Tensor, as_float

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
FINGERPRINT = "fingerprint.json"
REQUIRED_FILES = frozenset({WEIGHTS, CONFIG, FINGERPRINT})
OPTIONAL_FILES = frozenset({"README.md", "metrics.json"})
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM has kernels for."""

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_KEY = re.compile(r"base_model\.model\.(?P<module>[A-Za-z0-9_.]+)\.lora_(?P<half>[AB])\.weight")
_UNSUPPORTED = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "alora_invocation_tokens",
    "trainable_token_indices",
    "target_parameters",
    "use_bdlora",
    "use_qalora",
    "fan_in_fan_out",
)
"""Switches of PEFT that must be off: false, null or empty."""
_PLAIN_INITS = ("gaussian", "eva", "orthogonal")
"""Initialisations after which the saved adapter is still a plain LoRA on the unchanged base."""


def check_files(names: Iterable[str]) -> list[str]:
    """Only what an adapter needs: above all no pickle, which runs code when it is loaded."""
    present = set(names)
    problems = [f"{name} is missing" for name in sorted(REQUIRED_FILES - present)]
    for name in sorted(present - REQUIRED_FILES - OPTIONAL_FILES):
        if name.lower().endswith(_PICKLES):
            problems.append(f"{name} may be a pickle, which runs code when loaded; save safetensors")
        else:
            problems.append(f"{name} does not belong into an adapter")
    return problems


def check_config(config: Any, max_rank: int) -> list[str]:
    """adapter_config.json: a plain LoRA of a rank that the servers take."""
    if not isinstance(config, Mapping):
        return [f"{CONFIG} is not a JSON object"]
    used = [key for key in _UNSUPPORTED if config.get(key)]
    problems = [f"{key} is {config[key]!r}; vLLM cannot serve that" for key in used]
    if config.get("peft_type") != "LORA":
        problems.append(f"peft_type is {config.get('peft_type')!r}; it must be 'LORA'")
    if config.get("bias", "none") != "none":
        problems.append(f"bias is {config['bias']!r}; vLLM serves only 'none'")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init not in _PLAIN_INITS:
        problems.append(f"init_lora_weights is {init!r}, which changes the base model; use true")
    alpha = config.get("lora_alpha")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < math.inf:
        problems.append(f"lora_alpha is {alpha!r}; it must be a positive number")
    return problems + _check_rank(config.get("r"), max_rank)


def check_tensors(tensors: Sequence[Tensor], config: Mapping[str, Any]) -> list[str]:
    """Names that vLLM can place (others it skips in silence), and an A [r, in] with a B [out, r] for each."""
    if not tensors:
        return [f"{WEIGHTS} holds no tensor"]
    problems, halves = [], dict[str, dict[str, Tensor]]()
    for tensor in tensors:
        if (key := _KEY.fullmatch(tensor.name)) is None:
            problems.append(f"{tensor.name!r} is not named base_model.model.<module>.lora_A|lora_B.weight")
        else:
            halves.setdefault(key["module"], {})[key["half"]] = tensor
    for module, pair in halves.items():
        problems += _check_pair(module, pair, config.get("r"))
    return problems + _check_targets(halves, config.get("target_modules"))


def check_values(tensors: Sequence[Tensor], data: NDArray[np.uint8]) -> list[str]:
    """Finite everywhere, and a product B·A that is not zero everywhere: else the adapter equals the base."""
    problems, zero = [], set()
    for tensor in tensors:
        values = as_float(tensor, data)
        if not np.isfinite(values).all():
            problems.append(f"{tensor.name!r} holds NaN or infinity")
        if not values.any():
            zero.add(tensor.name)
    modules = {_module(tensor.name) for tensor in tensors}
    if modules == {_module(name) for name in zero}:
        problems.append("every B (or A) is zero: the adapter equals the base; nothing was trained")
    return problems


def check_fingerprint(fingerprint: Fingerprint) -> list[str]:
    """Probes that can be asked and compared: one finite log-probability per completion token, twice."""
    if not fingerprint.probes:
        return ["the fingerprint has no probe; the adapter could not be verified"]
    problems = []
    for index, probe in enumerate(fingerprint.probes):
        expected = len(probe.token_ids) - probe.start
        values = (*probe.adapter_logprobs, *probe.base_logprobs)
        if probe.start < 1 or expected < 1 or min(probe.token_ids) < 0:
            problems.append(f"probe {index}: start {probe.start} leaves no prompt or no completion")
        elif len(probe.adapter_logprobs) != expected or len(probe.base_logprobs) != expected:
            problems.append(f"probe {index}: {expected} completion tokens need {expected} log-probabilities, twice")
        elif not all(-math.inf < value < 0.01 for value in values):
            problems.append(f"probe {index}: a log-probability is not a finite number of at most 0")
    return problems


def _check_rank(rank: Any, max_rank: int) -> list[str]:
    if type(rank) is not int or rank not in RANKS:
        return [f"r is {rank!r}; vLLM takes {', '.join(map(str, RANKS))}"]
    if rank > max_rank:
        return [f"r is {rank}, above the servers' {max_rank}; raise --max-lora-rank and serving.max_rank"]
    return []


def _check_pair(module: str, pair: Mapping[str, Tensor], rank: Any) -> list[str]:
    if missing := {"A", "B"} - pair.keys():
        return [f"{module!r} has no lora_{missing.pop()}"]
    a, b = pair["A"].shape, pair["B"].shape
    if len(a) != 2 or len(b) != 2 or a[0] != rank or b[1] != rank or 0 in a + b:
        return [f"{module!r} has A {a} and B {b}; with r = {rank} they must be (r, in) and (out, r)"]
    return []


def _check_targets(modules: Iterable[str], targets: Any) -> list[str]:
    """target_modules and the tensors name the same modules; a pattern (a string) cannot be compared."""
    if isinstance(targets, str) and targets:
        return []
    if not isinstance(targets, list) or not targets:
        return [f"target_modules is {targets!r}; it must name the adapted modules"]
    names = list(modules)
    stray = sorted(n for n in names if not any(n == t or n.endswith(f".{t}") for t in targets))
    unused = sorted(str(t) for t in targets if not any(n == t or n.endswith(f".{t}") for n in names))
    problems = [f"{name!r} is not among target_modules" for name in stray]
    return problems + [f"target module {name!r} has no tensors" for name in unused]


def _module(name: str) -> str:
    return name.rsplit(".lora_", 1)[0]
