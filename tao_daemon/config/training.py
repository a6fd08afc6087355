"""TAO stage 3: how rewards become an adapter, and within which limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tao_daemon.config.values import Fraction, Positive, Seconds, Section


class Training(Section):
    command: tuple[str, ...] = ()
    """Command that runs the trainer in another environment; empty runs this Python. The spec directory is appended. A
    wrapper gives it the same absolute paths and passes standard input, output and the exit status through."""
    base_model: Path = Path("./model")
    """Folder of the base model (config, tokenizer, safetensors), the same weights that vLLM serves."""
    algorithm: Literal["clipped_policy_gradient", "grpo", "oapl", "raft"] = "clipped_policy_gradient"
    """How rewards become a gradient: PPO's clip without length and spread corrections (clipped_policy_gradient), or
    with (grpo); a regression of log-probability ratios on advantages (oapl); the likelihood of the best (raft)."""
    rank: Literal[8, 16, 32, 64, 128, 256] = 16
    """LoRA rank; at most the server's --max-lora-rank. A training starts from the adapter that serves and keeps
    its rank and alpha: to change them, undo to the base model first."""
    alpha: Positive = 32
    """LoRA scaling numerator (scaling = alpha / rank)."""
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 5e-4
    """AdamW step size at its highest, where training starts from the base model: it rises over the first tenth of the
    steps, then falls in a line to 0."""
    continued_learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 2e-4
    """The same where training starts from the adapter that serves: there both LoRA matrices move from the first step
    on, and the same rate goes several times as far."""
    epochs: Positive = 2
    """Passes over the round's groups."""
    groups_per_step: Positive = 8
    """Completion groups per optimizer step."""
    max_sequence_tokens: Positive = 4096
    """Prompt plus one completion; longer ones are dropped from training and counted."""
    micro_batch_tokens: Positive = 8192
    """Tokens per forward pass, at most (a single completion with its prompt may exceed it)."""
    clip_low: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """clipped_policy_gradient and grpo: lower clip of the probability ratio, 1 - clip_low."""
    clip_high: Annotated[float, Field(gt=0.0)] = 0.28
    """clipped_policy_gradient and grpo: upper clip of the probability ratio, 1 + clip_high."""
    strategy_clip_high: Annotated[float, Field(gt=0.0)] = 4.0
    """The same for completions of exploration strategies: the model did not sample them from the plain prompt, so what
    they found may be rare there and has further to go."""
    value_temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """oapl: β₁, how far the value of a prompt leans to its best completions (small: the best, large: the mean)."""
    policy_temperature: Annotated[float, Field(ge=0.0)] = 0.0
    """oapl: β₂, reward per nat of change; 0 chooses 10 / median completion length, within [0.005, 0.5]."""
    gradient_clip: Annotated[float, Field(gt=0.0)] = 1.0
    """Largest gradient norm."""
    kl_budget: Annotated[float, Field(gt=0.0)] = 1.0
    """Training stops when the mean per-token KL to the start exceeds this (nats), and returns to the latest weights
    within it. Estimated four times per epoch on plain completions that the start gave; how far the candidate is from
    the base model on answers of its own, which the gate caps, is another figure."""
    max_mismatch: Annotated[float, Field(gt=0.0)] = 0.2
    """Refuse to train when server and trainer differ by more than this per token (nats): mean absolute difference of
    their log-probabilities, on some plain completions of the round."""
    min_spread: Fraction = 0.05
    """A group whose rewards differ by less teaches nothing and is dropped."""
    min_groups: Positive = 4
    """A round with fewer groups that can teach fails before training."""
    dev_fraction: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    """Groups kept from the optimizer to choose the checkpoint by, and to stop early; all train when fewer than 8 could
    tell (at 0.1, of fewer than about 100 prompts, with what the round carries). 0: the gate alone decides."""
    checkpoint_seconds: Seconds = 300.0
    """A restarted training goes on where it was this long before, at most; on a CPU to the same bytes."""
    memory_headroom: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of the memory that training leaves free; it refuses to start when it would not fit."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Recompute activations in the backward pass: less memory, a third more time. auto: only when memory is short."""
    processes: Annotated[int, Field(ge=0)] = 0
    """Processes that share a training, each with a GPU; 0: one per GPU of this host, or one without a GPU."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the frozen base; auto takes bfloat16 where the hardware multiplies it natively."""
    timeout_seconds: Seconds = 14_400.0
    """Deadline of one training, and of measuring one candidate's divergence."""
