"""A data directory with a past: prompts of two people, rounds, adapters, a journal. Nothing of it runs."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from bench.past import remember, settling
from tao_daemon.app.backends import open_store
from tao_daemon.config import Config, load_config
from tao_daemon.control.scopes import Scope
from tao_daemon.control.tokens import TokenFile
from tao_daemon.domain.adapter import FingerprintProbe, Lineage
from tao_daemon.domain.completion import Completion, CompletionGroup, ScoredGroup
from tao_daemon.domain.ports import Claim, Ingest
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.learning.contract import encode_group
from tao_daemon.registry.adapter_store import DirectoryAdapterStore
from tao_daemon.registry.round_archive import RoundArchive
from tests.artefacts import write_artefact

NEEDLE = "kümmel-zwieback-4711"
CLAIMED = 8
ADA, BOB = "ada@example.org", "bob@example.org"


def make_prompt(offset: int, subject: str) -> Prompt:
    text = "".join(random.Random(offset).choices(string.ascii_lowercase, k=80))
    if subject == ADA:
        text += f" {NEEDLE} {offset}"
    source = Source("prompts", 0, offset)
    request = {"messages": [{"role": "user", "content": text}], "model": "m"}
    return Prompt(source.prompt_id, request, source, 1000.0 + offset, "acme", f"c{offset}", subject)


def tokens_of(prompt: Prompt) -> tuple[int, ...]:
    """Unlike any other prompt's."""
    return (90_000 + prompt.source.offset, 5, 6)


def group_of(prompt: Prompt) -> CompletionGroup:
    said = f"you wrote {prompt.user_text}"
    plain = Completion(0, "plain", said, (7, 8, 9), (-0.5, -0.25, -1.0), "stop")
    return CompletionGroup(prompt.id, tokens_of(prompt), (plain, Completion(1, "plain", "", (2,), (-0.1,), "stop")))


def publish(root: Path, work: Path, number: int, prompts: Sequence[Prompt], parent: str | None) -> str:
    """An adapter with one probe of ten tokens per prompt."""
    probes = tuple(FingerprintProbe((*tokens_of(each), *range(10)), 3, (-1.0,) * 10, (-1.5,) * 10) for each in prompts)
    artefact = write_artefact(work / f"artefact-{number}", seed=number, probes=probes)
    lineage = Lineage(number, parent, "/base", "d" * 64, tuple(each.id for each in prompts), ("json",), "c" * 64)
    return DirectoryAdapterStore(root, max_rank=16).publish(str(artefact), lineage, 5.0).name


@dataclass
class World:
    config: Config
    root: Path
    prompts: list[Prompt]
    claimed: list[Prompt]
    """By round 1, for training."""
    first: str
    """The adapter of round 1, trained on `claimed`; serves everything."""
    second: str
    """Of round 2, trained on others, from `first`."""

    @property
    def data_dir(self) -> Path:
        return self.config.daemon.data_dir

    @property
    def path(self) -> Path:
        return self.root / "config.toml"

    def of(self, subject: str) -> list[Prompt]:
        return [each for each in self.prompts if each.subject == subject]

    @property
    def archive(self) -> RoundArchive:
        return RoundArchive(self.data_dir / "rounds")

    @property
    def adapters(self) -> DirectoryAdapterStore:
        return DirectoryAdapterStore(self.data_dir / "adapters", max_rank=16)


def _leave_round_one(archive: RoundArchive, claimed: Sequence[Prompt]) -> None:
    groups = [group_of(each) for each in claimed]
    for group in groups:
        archive.append_group(1, group)
    archive.finish_sampling(1)
    archive.write_scores(1, [ScoredGroup(group, (1.0, 0.0), ("json",)) for group in groups])
    archive.update_report(1, {"phases": {"sampling": {"groups": len(groups)}}})


def _leave_evaluation(archive: RoundArchive, prompts: Sequence[Prompt]) -> None:
    rows = [
        {
            "prompt_id": each.id,
            "incumbent_text": f"old answer to {each.user_text}",
            "candidate_text": f"new answer to {each.user_text}",
            "incumbent_score": 0.5,
            "candidate_score": 1.0,
            "incumbent_tokens": 3,
            "candidate_tokens": 4,
            "incumbent_truncated": False,
            "candidate_truncated": False,
        }
        for each in prompts
    ]
    archive.write_evaluation(1, rows)


def _leave_round_two(archive: RoundArchive, prompts: Sequence[Prompt]) -> None:
    """Cut off in the middle: a torn line, a half-written table, the inputs of a training."""
    for each in prompts:
        archive.append_group(2, group_of(each))
    directory = archive.directory(2)
    with (directory / "completions.jsonl.part").open("ab") as file:
        file.write(f'{{"prompt_id": "torn", "text": "{NEEDLE}'.encode())
    (directory / "evaluation.jsonl.tmp").write_text(f'{{"text": "{NEEDLE}"}}')
    attempt = archive.training_directory(2, 1)
    attempt.mkdir(parents=True)
    lines = [encode_group(ScoredGroup(group_of(each), (1.0, 0.0), ("json",))) for each in prompts]
    (attempt / "batch.jsonl").write_text("\n".join(lines))


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., World]:
    """Builds one below tmp_path/NAME, without Kafka."""

    def make(name: str = "site") -> World:
        root = tmp_path / name
        root.mkdir()
        data_dir = root / "data"
        text = f'[daemon]\ndata_dir = "{data_dir}"\n[kafka]\nenabled = false\n[buffer]\nheld_out_fraction = 0.3\n'
        (root / "config.toml").write_text(text + "min_free_disk_mib = 0\n")
        config = load_config(root / "config.toml")
        data_dir.mkdir()
        prompts = [make_prompt(offset, ADA if offset % 4 == 0 else BOB) for offset in range(40)]
        claimed = claim(config, prompts)
        archive = RoundArchive(data_dir / "rounds")
        _leave_round_one(archive, claimed)
        held_out = [each for each in prompts if each not in claimed][:10]
        _leave_evaluation(archive, held_out)
        first = publish(data_dir / "adapters", root, 1, claimed, None)
        bobs = [each for each in prompts if each.subject == BOB and each not in claimed][:3]
        second = publish(data_dir / "adapters", root, 2, bobs, first)
        _leave_round_two(archive, [*bobs, prompts[0]])
        remember(config, settling(1, first), count(100.0))
        tokens = TokenFile(data_dir)
        tokens.add(tokens.prepare("ada", [Scope.READ], None, 100.0)[0])
        doomed = data_dir / "adapters" / ".tmp-r000000-0123456789ab-1"  # a deletion that was interrupted
        doomed.mkdir()
        (doomed / "fingerprint.json").write_text("{}")
        return World(config, root, prompts, claimed, first, second)

    return make


def claim(config: Config, prompts: Sequence[Prompt]) -> list[Prompt]:
    async def work() -> list[Prompt]:
        store = open_store(config, lambda signal: None)
        try:
            await asyncio.wrap_future(store.submit(Ingest(tuple(prompts), {("prompts", 0): len(prompts)})))
            return list(await store.claim_training(Claim(1, CLAIMED, 1.0, lambda prompt: True)))
        finally:
            store.close()

    return asyncio.run(work())
