"""How much memory a training needs, and how it is made to fit.

Pure. Bytes, from the shapes alone; s is the size of one number of the frozen base, h the hidden width, q the width of
all query heads, I the width of the feed-forward layers, r the LoRA rank, N the tokens of a micro-batch with padding, L
those of one of its rows.

    weights            parameters · s
    adapter            LoRA parameters · 4 · 5             weight, gradient, Adam's two moments, kept weights
    activations/layer  N · s·(4h + 9q + 4I + 7r)           what a layer keeps for its backward pass: inputs and outputs
                       + N · (8h + s·(5h + q + I))         of norms, attention (in two parts) and feed-forward; half
                                                           precision copies what goes into norms and adapters
    activations        layers · that                       or, recomputed: layers · N·h·s + one layer,
                                                           the one that is computed again
    passing            N · s·(8h + 4I)                     gradients on their way through a layer
    mask               N · L · (s + 3)
    head               3 chunks of logits + 2 · N·h·s

A forward pass without gradients takes one layer's activations at a time, but its micro-batches may hold groups of
several steps.

Left out: what is small (the batch itself, π₀'s log-probabilities), and the memory allocator's waste, for which there
is `memory_headroom`; where activations are recomputed it would be more than what lives, but for `heap`.

needed(as configured) → smaller micro-batches → recomputed activations → refusal with the figures
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tao_daemon.domain.errors import TrainingError

PROCESS_BYTES = 640 * 2**20
"""The interpreter with its libraries (435 MiB after loading and one forward pass with torch 2.13 on a CPU) and what
the allocator keeps; or a GPU's context with its libraries' workspaces."""
LOGITS_BYTES = 3 * 2**26
_ADAPTER_COPIES = 5
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the base model's files say about its size."""

    parameters: int
    linear_widths: int
    """Σ (inputs + outputs) over all linear layers that get an adapter."""
    vocabulary: int
    layers: int
    hidden: int
    queries: int
    intermediate: int

    def adapter_bytes(self, rank: int) -> int:
        return self.linear_widths * rank * 4 * _ADAPTER_COPIES

    def layer_bytes(self, number_bytes: int, rank: int) -> int:
        """What one layer keeps per token for its backward pass."""
        h, q, i = self.hidden, self.queries, self.intermediate
        kept = number_bytes * (4 * h + 9 * q + 4 * i + 7 * rank)
        return kept if number_bytes >= 4 else kept + 8 * h + number_bytes * (5 * h + q + i)


@dataclass(frozen=True, slots=True)
class Load:
    """What goes through the model."""

    micro_batch_tokens: int
    longest: int
    """Tokens of the longest prompt with one completion: no micro-batch can be smaller."""
    largest: int
    """Tokens of the longest prompt with the completions of any group: no row of a batch is longer."""
    step: int
    """Tokens of as many groups as make a step, padded to the longest: no micro-batch that trains is larger."""
    total: int
    """Tokens of all groups, padded to the longest: no other micro-batch is larger."""
    number_bytes: int
    """4 for float32, 2 for bfloat16."""
    rank: int


@dataclass(frozen=True, slots=True)
class Fit:
    """How a training runs in the memory there is."""

    micro_batch_tokens: int
    checkpoint_activations: bool
    needed: int
    available: int

    def metrics(self) -> dict[str, float]:
        return {
            "micro_batch_tokens": float(self.micro_batch_tokens),
            "checkpointed_activations": float(self.checkpoint_activations),
            "memory_needed_bytes": float(self.needed),
            "memory_available_bytes": float(self.available),
        }


def needed_bytes(shape: ModelShape, load: Load, *, recomputed: bool) -> int:
    """The most that training holds at once."""
    s = load.number_bytes
    tokens = max(load.longest, min(load.micro_batch_tokens, load.step))
    layer = tokens * shape.layer_bytes(s, load.rank)
    activations = shape.layers * tokens * shape.hidden * s + layer if recomputed else shape.layers * layer
    training = activations + _passing(shape, load, tokens)
    tokens = max(load.longest, min(load.micro_batch_tokens, load.total))
    looking = tokens * shape.layer_bytes(s, load.rank) + _passing(shape, load, tokens)
    return PROCESS_BYTES + shape.parameters * s + shape.adapter_bytes(load.rank) + max(training, looking)


def _passing(shape: ModelShape, load: Load, tokens: int) -> int:
    """Everything that grows with the tokens but the activations that are kept."""
    s = load.number_bytes
    passing = tokens * s * (8 * shape.hidden + 4 * shape.intermediate)
    mask = tokens * min(tokens, load.largest) * (s + 3)
    return passing + mask + LOGITS_BYTES + 2 * tokens * shape.hidden * s


def fit(shape: ModelShape, load: Load, *, checkpointing: str, available: int, headroom: float) -> Fit:
    """The fastest way that fits into `available` less its `headroom`.

    `checkpointing` is `[training] gradient_checkpointing`. Raises TrainingError with the figures and the remedies.
    """
    budget = int(available * (1.0 - headroom))
    smallest: tuple[int, bool, int] | None = None
    for recomputed in {"on": (True,), "off": (False,), "auto": (False, True)}[checkpointing]:
        for tokens in _sizes(load):
            one = replace(load, micro_batch_tokens=tokens)
            needed = needed_bytes(shape, one, recomputed=recomputed)
            if needed <= budget:
                return Fit(tokens, recomputed, needed, available)
            smallest = min(smallest or (needed, recomputed, tokens), (needed, recomputed, tokens))
    assert smallest is not None
    raise TrainingError(
        f"training needs {smallest[0] / _GIB:.2f} GiB at the least ({smallest[2]} tokens at a time) and "
        f"{budget / _GIB:.2f} GiB of {available / _GIB:.2f} GiB free may be used; lower training.max_sequence_tokens, "
        + ('set training.gradient_checkpointing = "auto", ' if checkpointing == "off" else "")
        + "free memory on this machine, lower training.memory_headroom, or train elsewhere (training.command)"
    )


def fit_forward(shape: ModelShape, load: Load, *, available: int, headroom: float) -> Fit:
    """The largest micro-batches in which two adapters and the base are compared, `load.total` tokens of answers.

    Weights, the head again in float32, two adapters, one layer's activations, three policies' hidden states, logits.
    Raises TrainingError with the figures and the remedies.
    """
    budget, s = int(available * (1.0 - headroom)), load.number_bytes
    head = shape.vocabulary * shape.hidden * 4 if s < 4 else 0
    fixed = PROCESS_BYTES + shape.parameters * s + head + 2 * shape.linear_widths * load.rank * 4
    needed = tokens = 0
    for tokens in _sizes(load):
        batch = min(tokens, load.total)
        layer = batch * (shape.layer_bytes(s, load.rank) + 3 * shape.hidden * s)
        needed = fixed + layer + 2 * _passing(shape, load, batch)
        if needed <= budget:
            return Fit(tokens, False, needed, available)
    raise TrainingError(
        f"measuring a divergence needs {needed / _GIB:.2f} GiB at the least ({tokens} tokens at a time) and "
        f"{budget / _GIB:.2f} GiB of {available / _GIB:.2f} GiB free may be used; free memory on this machine, lower "
        "training.memory_headroom, or set gate.divergence_prompts to 0"
    )


def _sizes(load: Load) -> Iterator[int]:
    """The configured size, then halves of it, down to the longest sequence."""
    tokens = max(load.micro_batch_tokens, load.longest)
    while tokens > load.longest:
        yield tokens
        tokens //= 2
    yield load.longest
