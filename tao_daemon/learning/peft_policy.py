"""The model that learns: a frozen base with a LoRA adapter on all linear layers, and log-probabilities from it.

The base is read from a local folder in safetensors only. No dropout anywhere, so that the same pack gives the
same log-probabilities until a weight changes. LoRA weights are float32; a bfloat16 base runs under autocast.

load the base → attach a new adapter or continue one → log-probabilities → save
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning.contract import ADAPTER_CONFIG_FILE, ADAPTER_FILE, TrainingSpec
from tao_daemon.learning.logprobs import token_logprobs
from tao_daemon.learning.packing import PROMPT_SEGMENT, Pack

_SCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
_FULL_ATTENTION = {"full_attention", "sliding_attention"}


class Policy:
    """π: log-probabilities of a pack's completion tokens under base plus adapter."""

    def __init__(self, model: PeftModel, device: torch.device) -> None:
        causal: Any = model.get_base_model()
        self._model = model
        self._trunk = causal.base_model
        self._head = causal.get_output_embeddings()
        self._device = device
        self._dtype: torch.dtype = self._head.weight.dtype
        self.vocabulary = len(self._head.weight)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the frozen base."""
        return self._dtype

    def logprobs(self, pack: Pack) -> Tensor:
        """logprobs_T of the pack's targets, float32, differentiable in the adapter unless under no_grad."""
        with self._precision():
            hidden_LD = self._trunk(
                input_ids=self._tensor(pack.input_ids)[None],
                position_ids=self._tensor(pack.positions)[None],
                attention_mask=self._mask(pack),
                use_cache=False,
            ).last_hidden_state[0]
            hidden_TD = hidden_LD.index_select(0, self._tensor(pack.predictors))
            return token_logprobs(hidden_TD, self._head.weight, self._head.bias, self._tensor(pack.targets))

    @contextmanager
    def base_only(self) -> Iterator[None]:
        """The base model without any adapter."""
        with self._model.disable_adapter():
            yield

    def save(self, directory: Path) -> None:
        """Write the adapter as vLLM reads it. The same weights and settings give the same bytes."""
        weights = get_peft_model_state_dict(self._model, save_embedding_layers=False)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        save_file(tensors, directory / ADAPTER_FILE, metadata={"format": "pt"})
        settings = {**self._model.active_peft_config.to_dict(), "inference_mode": True}
        settings["target_modules"] = sorted(settings["target_modules"])
        text = json.dumps(settings, indent=2, sort_keys=True, default=str) + "\n"
        (directory / ADAPTER_CONFIG_FILE).write_text(text, encoding="utf-8")

    def _precision(self) -> AbstractContextManager[Any]:
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def _tensor(self, values: tuple[int, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)

    def _mask(self, pack: Pack) -> Tensor:
        """Additive 4-D mask, `packing.sees` as a tensor. A finite minimum: kernels make NaN of rows of −inf."""
        segments_L = self._tensor(pack.segments)
        own_LL = segments_L[:, None] == segments_L[None, :]
        seen_LL = (own_LL | (segments_L == PROMPT_SEGMENT)[None, :]).tril()
        mask_LL = torch.zeros(seen_LL.shape, dtype=self._dtype, device=self._device)
        return mask_LL.masked_fill_(~seen_LL, torch.finfo(self._dtype).min)[None, None]


def load_policy(spec: TrainingSpec) -> Policy:
    """π₀, ready to learn. Raises TrainingError for an architecture that cannot be trained here."""
    torch.manual_seed(spec.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = choose_dtype(spec.dtype, device)
    base: Any = transformers.AutoModelForCausalLM.from_pretrained(
        spec.base_model, dtype=dtype, attn_implementation="sdpa", local_files_only=True, use_safetensors=True
    )
    _check_architecture(base.config)
    base.requires_grad_(False)
    model = _attach(base.to(device), spec)
    model.eval()  # no dropout: π₀ and πθ must differ by weights alone
    return Policy(model, device)


def choose_dtype(requested: str, device: torch.device) -> torch.dtype:
    """`auto` takes bfloat16 only where it is multiplied natively: emulated, it is a hundred times slower."""
    if requested != "auto":
        return torch.bfloat16 if requested == "bfloat16" else torch.float32
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = not {"avx512_bf16", "amx_bf16"}.isdisjoint(_cpu_flags())
    return torch.bfloat16 if native else torch.float32


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def _attach(base: Any, spec: TrainingSpec) -> PeftModel:
    if spec.start_adapter is None:
        config = LoraConfig(
            r=spec.rank,
            lora_alpha=spec.alpha,
            lora_dropout=0.0,
            bias="none",
            target_modules=_linear_layers(base),
            task_type="CAUSAL_LM",
        )
        model: PeftModel = get_peft_model(base, config)
        return model
    return PeftModel.from_pretrained(base, spec.start_adapter, is_trainable=True, local_files_only=True)


def _linear_layers(base: Any) -> list[str]:
    """Last names of all linear layers but the language-model head: short, as vLLM's own configs have them."""
    head = base.get_output_embeddings()
    layers = [name for name, layer in base.named_modules() if isinstance(layer, torch.nn.Linear) and layer is not head]
    return sorted({name.rpartition(".")[2] for name in layers})


def _check_architecture(config: Any) -> None:
    scaled = [name for name in _SCALED_LOGITS if getattr(config, name, None) not in (None, 0, 1)]
    kinds = set(getattr(config, "layer_types", None) or ()) - _FULL_ATTENTION
    if scaled or kinds:
        raise TrainingError(
            f"base model type {config.model_type} is not supported: {', '.join(scaled + sorted(kinds))}; "
            "the trainer needs plain attention and an unscaled language-model head"
        )
