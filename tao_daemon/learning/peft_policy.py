"""The model that learns: a frozen base with a LoRA adapter on all linear layers, and log-probabilities from it.

The base is read from a local folder in safetensors only. No dropout anywhere, so that the same pack gives the
same log-probabilities until a weight changes. LoRA weights are float32; a bfloat16 base runs under autocast.

load the base → attach a new adapter or continue one → log-probabilities → save
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning import shared_prefix
from tao_daemon.learning.contract import ADAPTER_CONFIG_FILE, ADAPTER_FILE, TrainingSpec
from tao_daemon.learning.fused_lora import fuse
from tao_daemon.learning.heap import map_large_blocks
from tao_daemon.learning.logprobs import token_logprobs
from tao_daemon.learning.packing import PROMPT_SEGMENT, Pack

_PADDING = -1
_SCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
_FULL_ATTENTION = {"full_attention", "sliding_attention"}


class Policy:
    """π: log-probabilities of packs' completion tokens under base plus adapter."""

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

    def logprobs(self, *packs: Pack) -> Tensor:
        """logprobs_T of the packs' targets, one pack after the other, in one forward pass.

        float32 (float64 for a float64 base), differentiable in the adapter unless under no_grad.
        """
        prompt, rest = max(pack.size[0] for pack in packs), max(pack.size[1] for pack in packs)

        def laid_out(rows: Sequence[tuple[int, ...]], filler: int) -> Tensor:
            """[prompt | completions], each part padded to the longest of the batch."""
            cut = [
                (row[: pack.prompt_tokens], row[pack.prompt_tokens :]) for row, pack in zip(rows, packs, strict=True)
            ]
            return self._tensor([_filled(head, prompt, filler) + _filled(tail, rest, filler) for head, tail in cut])

        predictors_T = self._tensor(_predictors(packs, prompt, prompt + rest))
        targets_T = self._tensor([target for pack in packs for target in pack.targets])
        with self._precision():
            hidden_BLD = self._trunk(
                input_ids=laid_out([pack.input_ids for pack in packs], 0),
                position_ids=laid_out([pack.positions for pack in packs], 0),
                attention_mask=self._mask(laid_out([pack.segments for pack in packs], _PADDING), rest),
                use_cache=False,
            ).last_hidden_state
            hidden_TD = hidden_BLD.flatten(0, 1).index_select(0, predictors_T)
            return token_logprobs(hidden_TD, self._head.weight, self._head.bias, targets_T)

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
        if torch.finfo(self._dtype).bits >= 32:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def _tensor(self, values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)

    def _mask(self, segments_BL: Tensor, rest: int) -> Tensor:
        """Additive (B, 1, C, L) mask of the completions' queries, `packing.sees` as a tensor; nothing sees padding.

        A finite minimum: kernels make NaN of rows of −inf.
        """
        rows_BC = segments_BL[:, segments_BL.shape[1] - rest :]
        own_BCL = rows_BC[:, :, None] == segments_BL[:, None, :]
        seen_BCL = own_BCL | (segments_BL == PROMPT_SEGMENT)[:, None, :]
        seen_BCL = seen_BCL.tril(segments_BL.shape[1] - rest)
        mask_BCL = torch.zeros(seen_BCL.shape, dtype=self._dtype, device=self._device)
        return mask_BCL.masked_fill_(~seen_BCL, torch.finfo(self._dtype).min)[:, None]


def _filled(values: tuple[int, ...], length: int, filler: int) -> tuple[int, ...]:
    return values + (filler,) * (length - len(values))


def _predictors(packs: Sequence[Pack], prompt: int, width: int) -> list[int]:
    """Rows of the flattened batch whose hidden states predict the packs' targets."""
    shifts = [prompt - pack.prompt_tokens for pack in packs]  # completions begin where the longest prompt ends
    return [
        row * width + index + (shift if index >= pack.prompt_tokens else 0)
        for row, (pack, shift) in enumerate(zip(packs, shifts, strict=True))
        for index in pack.predictors
    ]


def load_policy(spec: TrainingSpec) -> Policy:
    """π₀, ready to learn. Raises TrainingError for an architecture that cannot be trained here."""
    torch.manual_seed(spec.seed)
    if spec.checkpoint_activations:
        map_large_blocks()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = choose_dtype(spec.dtype, device)
    base: Any = transformers.AutoModelForCausalLM.from_pretrained(
        spec.base_model,
        dtype=dtype,
        attn_implementation=shared_prefix.NAME,
        local_files_only=True,
        use_safetensors=True,
    )
    _check_architecture(base.config)
    base.requires_grad_(False)
    model = _attach(base.to(device), spec)
    fuse(model)
    model.eval()  # no dropout: π₀ and πθ must differ by weights alone
    if spec.checkpoint_activations:
        _checkpoint(model)
    return Policy(model, device)


def _checkpoint(model: PeftModel) -> None:
    """Keep each decoder layer's input only, and compute its inside again in the backward pass."""
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True  # what switches recomputing on; its children, dropout among them, stay in eval


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
