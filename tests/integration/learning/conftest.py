"""A random Llama of two layers, batches whose behaviour log-probabilities are its own, and ready spec folders."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from tao_daemon.domain.completion import PLAIN, Completion, CompletionGroup, ScoredGroup
from tao_daemon.learning.contract import BATCH_FILE, SPEC_FILE, TrainingSpec, encode_group, encode_spec
from tao_daemon.learning.packing import pack_group
from tao_daemon.learning.peft_policy import Policy, load_policy

VOCABULARY = 64
TARGET = 7
"""The token that `rewarding` batches reward."""


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny matrices lose by threads, and the machine may be busy; children inherit the variable."""
    patch = pytest.MonkeyPatch()
    patch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    yield
    patch.undo()


def make_base(folder: Path, **changes: object) -> Path:
    torch.manual_seed(1)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
    }
    config = transformers.LlamaConfig(**{**settings, **changes})
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny base model in safetensors."""
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def spec(base: Path) -> TrainingSpec:
    return TrainingSpec(
        base_model=str(base),
        start_adapter=None,
        start_base_digest=None,
        algorithm="clipped_policy_gradient",
        rank=8,
        alpha=16,
        learning_rate=1e-2,
        epochs=4,
        groups_per_step=4,
        max_sequence_tokens=64,
        micro_batch_tokens=1024,
        clip_low=0.2,
        clip_high=0.28,
        strategy_clip_high=4.0,
        value_temperature=1.0,
        policy_temperature=0.0,
        gradient_clip=1.0,
        kl_budget=5.0,
        max_mismatch=0.2,
        min_spread=0.05,
        min_groups=2,
        dev_fraction=0.0,
        checkpoint_seconds=300.0,
        memory_headroom=0.1,
        gradient_checkpointing="auto",
        processes=1,
        dtype="float32",
        seed=3,
    )


def rewarding(policy: Policy, *, groups: int = 8, seed: int = 0) -> list[ScoredGroup]:
    """Completions rewarded by their share of TARGET, with π₀'s own log-probabilities as the sampler's."""
    rng = random.Random(seed)
    return [_group(policy, rng, f"p{index}") for index in range(groups)]


def _group(policy: Policy, rng: random.Random, name: str) -> ScoredGroup:
    prompt = tuple(rng.randrange(VOCABULARY) for _ in range(rng.randint(3, 9)))
    texts = [tuple(_token(rng) for _ in range(rng.randint(1, 6))) for _ in range(6)]
    (pack,) = pack_group(prompt, texts, 10_000)
    with torch.no_grad():
        logprobs = policy.logprobs(pack).tolist()
    completions = []
    for index, tokens in enumerate(texts):
        strategy = "hint" if index == 5 else PLAIN
        own = tuple(logprobs[: len(tokens)])
        del logprobs[: len(tokens)]
        completions.append(Completion(index, strategy, "", tokens, own, "stop"))
    rewards = tuple(tokens.count(TARGET) / len(tokens) for tokens in texts)
    return ScoredGroup(CompletionGroup(name, prompt, tuple(completions)), rewards, ())


def _token(rng: random.Random) -> int:
    return TARGET if rng.random() < 0.3 else rng.randrange(VOCABULARY)


@pytest.fixture
def shifted(batch: list[ScoredGroup]) -> Callable[[float], list[ScoredGroup]]:
    """The batch as a sampler reports it whose log-probabilities are off by so many nats per token."""

    def shift(nats: float) -> list[ScoredGroup]:
        def off(completion: Completion) -> Completion:
            return replace(completion, logprobs=tuple(value + nats for value in completion.logprobs))

        moved = [tuple(off(completion) for completion in scored.group.completions) for scored in batch]
        return [replace(g, group=replace(g.group, completions=c)) for g, c in zip(batch, moved, strict=True)]

    return shift


@pytest.fixture
def policy(spec: TrainingSpec) -> Policy:
    return load_policy(spec)


@pytest.fixture
def batch(policy: Policy) -> list[ScoredGroup]:
    return rewarding(policy)


@pytest.fixture
def many(policy: Policy) -> Callable[[int], list[ScoredGroup]]:
    """A batch of so many groups."""
    return lambda groups: rewarding(policy, groups=groups)


@pytest.fixture
def write_job(tmp_path: Path) -> Callable[[TrainingSpec, list[ScoredGroup]], Path]:
    """Writes a spec folder for the worker."""

    def write(spec: TrainingSpec, groups: list[ScoredGroup]) -> Path:
        folder = tmp_path / "attempt-1"
        folder.mkdir(exist_ok=True)
        (folder / SPEC_FILE).write_text(encode_spec(spec))
        (folder / BATCH_FILE).write_text("".join(encode_group(group) + "\n" for group in groups))
        return folder

    return write


@pytest.fixture
def target_probability() -> Callable[[Policy], float]:
    """Mean probability of TARGET after prompts that were never trained on."""
    rng = random.Random(99)
    packs = [pack_group([rng.randrange(VOCABULARY) for _ in range(5)], [[TARGET]], 100)[0] for _ in range(20)]

    def measure(policy: Policy) -> float:
        with torch.no_grad():
            return sum(policy.logprobs(pack).exp().item() for pack in packs) / len(packs)

    return measure
