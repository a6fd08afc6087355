"""The evaluator: both models asked the same, scored alone, judged."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import MappingProxyType

import pytest

from tao_daemon.config import Gate
from tao_daemon.domain.completion import REFUSED, UNANSWERED, Answer, CompletionGroup
from tao_daemon.domain.errors import UpstreamError
from tao_daemon.domain.ports import SamplingAids
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.domain.report import Decision
from tao_daemon.evaluation.evaluator import BATCH_PROMPTS, Evaluator

GATE = Gate(prompts=64, min_prompts=64, resamples=1000)


class Answers:
    """A `Sampler` whose base model answers "bad" and whose candidate answers "good"."""

    def __init__(self, overrides: dict[tuple[str | None, str], Answer] | None = None) -> None:
        self.asked: list[tuple[str | None, int]] = []
        self._overrides = overrides or {}

    async def answer(self, prompts: Sequence[Prompt], *, model: str | None) -> Sequence[Answer]:
        self.asked.append((model, len(prompts)))
        usual = Answer("good" if model == "new" else "bad", 10, "stop")
        return [self._overrides.get((model, prompt.id), usual) for prompt in prompts]

    def sample(
        self, prompts: Sequence[Prompt], *, model: str | None, seed: int, aids: SamplingAids
    ) -> AsyncGenerator[CompletionGroup, None]:
        raise AssertionError("the gate asks for answers only")

    async def draw(self, prompts: Sequence[Prompt], *, model: str | None, seed: int) -> Sequence[CompletionGroup]:
        raise AssertionError("the gate asks for answers only")


class Scores:
    async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None]:
        return [{"good": 0.9, "bad": 0.2, "": 0.1, "unscorable": None}[text] for text in texts]


class Compares:
    """A judge: it ranks, and says nothing of a text alone."""

    async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None]:
        better = max(texts, key=["", "bad", "good"].index)
        return [None] if len(texts) == 1 else [float(text == better) for text in texts]


def prompts(count: int = 64) -> list[Prompt]:
    return [Prompt(f"p{n}", {"prompt": "q"}, Source("t", 0, n), received_at=0.0) for n in range(count)]


async def evaluate(  # type: ignore[no-untyped-def]
    sampler: Answers,
    count: int = 64,
    progress: list[tuple[int, int]] | None = None,
    distance: Mapping[str, float] = MappingProxyType({}),
    remarks: Sequence[str] = (),
    scorer: Scores | Compares | None = None,
):
    def note(done: int, total: int) -> None:
        if progress is not None:
            progress.append((done, total))

    evaluator = Evaluator(sampler, scorer or Scores(), GATE, remarks=remarks)
    return await evaluator.evaluate(
        prompts(count), incumbent=None, candidate="new", seed=1, distance=distance, progress=note
    )


async def test_a_better_candidate_passes_with_both_answers_at_hand() -> None:
    sampler, progress = Answers(), []
    evaluation = await evaluate(sampler, progress=progress)  # type: ignore[arg-type]
    assert evaluation.verdict.decision is Decision.PASS
    assert evaluation.verdict.numbers["difference"] == pytest.approx(0.7)
    assert [pair.prompt_id for pair in evaluation.pairs] == [f"p{n}" for n in range(64)]
    assert evaluation.answers == (("bad", "good"),) * 64
    assert progress == [(32, 64), (64, 64)]
    assert sampler.asked == [(None, BATCH_PROMPTS), ("new", BATCH_PROMPTS)] * 2


@pytest.mark.parametrize(
    ("distance", "decision", "said"),
    [
        ({"kl_to_base_per_token": 0.5, "length_ratio_to_base": 1.1}, Decision.PASS, "at most 2.00"),
        ({"kl_to_base_per_token": 2.5}, Decision.FAIL, "KL to base per token 2.50 exceeds 2.00"),
        ({"kl_to_base_per_token": math.nan}, Decision.INCONCLUSIVE, "KL to base per token is not a number"),
        ({"length_ratio_to_base": 1.8, "length_ratio_to_base_low": 1.6}, Decision.FAIL, "1.80 exceeds 1.50"),
        ({"length_ratio_to_base": 1.8, "length_ratio_to_base_low": 1.4}, Decision.INCONCLUSIVE, "perhaps by chance"),
    ],
)
async def test_a_candidate_far_from_the_base_does_not_pass_however_good_it_is(
    distance: Mapping[str, float], decision: Decision, said: str
) -> None:
    found = await evaluate(Answers(), distance=distance)
    assert found.verdict.decision is decision
    assert said in found.verdict.summary
    assert distance.items() <= found.verdict.numbers.items() or math.isnan(next(iter(distance.values())))


@pytest.mark.parametrize(
    ("text", "criterion"), [("I'm sorry, but I can't do that.", "refusal"), ("ha " * 30, "degenerate")]
)
async def test_a_candidate_that_refuses_or_repeats_itself_fails(text: str, criterion: str) -> None:
    class Kind(Scores):
        async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None]:
            return [0.2 if text == "bad" else 0.9 for text in texts]

    sampler = Answers({("new", f"p{n}"): Answer(text, 10, "stop") for n in range(16)})
    evaluator = Evaluator(sampler, Kind(), GATE)
    found = await evaluator.evaluate(
        prompts(), incumbent=None, candidate="new", seed=1, distance={}, progress=lambda done, total: None
    )
    assert found.verdict.decision is Decision.FAIL
    assert f"{criterion} increase 0.25 exceeds" in found.verdict.summary


@pytest.mark.parametrize("count", [65, 97])
async def test_no_batch_is_a_single_prompt(count: int) -> None:
    sampler = Answers()
    assert len((await evaluate(sampler, count=count)).pairs) == count
    assert max(size for _, size in sampler.asked) - min(size for _, size in sampler.asked) <= 1
    assert max(size for _, size in sampler.asked) <= BATCH_PROMPTS


async def test_remarks_end_the_reasons() -> None:
    found = await evaluate(Answers(), remarks=("judged by what it was trained to please: judge",))
    assert found.verdict.reasons[-1] == "judged by what it was trained to please: judge"


async def test_with_too_few_prompts_nothing_is_asked() -> None:
    sampler = Answers()
    evaluation = await evaluate(sampler, count=63)
    assert evaluation.verdict.decision is Decision.INCONCLUSIVE
    assert (sampler.asked, evaluation.pairs, evaluation.answers) == ([], (), ())


async def test_lengths_and_truncation_reach_the_gate() -> None:
    overrides = {("new", f"p{n}"): Answer("good", 30, "length") for n in range(16)}
    evaluation = await evaluate(Answers(overrides))
    assert evaluation.pairs[0].candidate_truncated
    assert evaluation.pairs[0].candidate_tokens == 30
    assert not evaluation.pairs[16].candidate_truncated
    assert evaluation.verdict.decision is Decision.FAIL


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (None, Answer("", 0, REFUSED)),
        (None, Answer("", 0, UNANSWERED)),
        (None, Answer("unscorable", 3, "stop")),
        ("new", Answer("unscorable", 3, "stop")),
    ],
)
async def test_a_prompt_that_the_incumbent_has_no_answer_to_or_that_is_unscorable_leaves_both_sides(
    model: str | None, answer: Answer
) -> None:
    few = await evaluate(Answers({(model, f"p{n}"): answer for n in range(6)}))
    assert [pair.prompt_id for pair in few.pairs] == [f"p{n}" for n in range(6, 64)]
    assert len(few.answers) == 58
    assert few.verdict.decision is Decision.PASS
    many = await evaluate(Answers({(model, f"p{n}"): answer for n in range(7)}))
    assert many.verdict.decision is Decision.INCONCLUSIVE


@pytest.mark.parametrize("reason", [REFUSED, UNANSWERED])
async def test_what_only_the_candidate_has_no_answer_to_counts_against_it(reason: str) -> None:
    """As a server refuses what a model says in place of a required tool's arguments."""
    nothing = Answer("", 0, reason)
    found = await evaluate(Answers({("new", f"p{n}"): nothing for n in range(6)}))
    assert [(pair.incumbent_score, pair.candidate_score) for pair in found.pairs[:6]] == [(0.2, 0.0)] * 6
    assert len(found.pairs) == 64
    assert found.verdict.decision is not Decision.PASS
    assert found.verdict.reasons[-1] == "no answer of the candidate, counted as 0, to 6 prompts"
    neither = await evaluate(Answers({(model, f"p{n}"): nothing for n in range(6) for model in (None, "new")}))
    assert len(neither.pairs) == 58


async def test_a_judge_too_counts_what_only_the_candidate_has_no_answer_to() -> None:
    nothing = Answer("", 0, REFUSED)
    found = await evaluate(Answers({("new", f"p{n}"): nothing for n in range(6)}), scorer=Compares())
    assert [(pair.incumbent_score, pair.candidate_score) for pair in found.pairs[:7]] == [(1.0, 0.0)] * 6 + [(0.0, 1.0)]
    assert len(found.pairs) == 64


async def test_a_scorers_server_that_is_down_leaves_no_other_scoring_behind() -> None:
    class Down(Scores):
        asked = 0

        async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None]:
            Down.asked += 1
            if Down.asked == 5:
                raise UpstreamError("the judge is down")
            await asyncio.sleep(30)
            raise AssertionError("cancelled long before")

    before = asyncio.all_tasks()
    with pytest.raises(UpstreamError, match="the judge is down"):
        await Evaluator(Answers(), Down(), GATE).evaluate(
            prompts(), incumbent=None, candidate="new", seed=1, distance={}, progress=lambda done, total: None
        )
    assert asyncio.all_tasks() == before


async def test_an_answer_that_cannot_be_had_is_no_verdict() -> None:
    class Down(Answers):
        async def answer(self, prompts: Sequence[Prompt], *, model: str | None) -> Sequence[Answer]:
            raise UpstreamError("down")

    with pytest.raises(UpstreamError):
        await evaluate(Down())


async def test_an_evaluation_does_not_print_answers() -> None:
    assert "good" not in repr(await evaluate(Answers()))
