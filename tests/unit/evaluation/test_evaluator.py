"""The evaluator: both models asked the same, scored alone, judged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from tao_daemon.config import Gate
from tao_daemon.domain.completion import REFUSED, Answer, CompletionGroup
from tao_daemon.domain.errors import UpstreamError
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

    def sample(self, prompts: Sequence[Prompt], *, model: str | None, seed: int) -> AsyncIterator[CompletionGroup]:
        raise AssertionError("the gate asks for answers only")


class Scores:
    async def absolute(self, prompt: Prompt, texts: Sequence[str]) -> Sequence[float | None]:
        return [{"good": 0.9, "bad": 0.2, "unscorable": None}[text] for text in texts]


def prompts(count: int = 64) -> list[Prompt]:
    return [Prompt(f"p{n}", {"prompt": "q"}, Source("t", 0, n), received_at=0.0) for n in range(count)]


async def evaluate(sampler: Answers, count: int = 64, progress: list[tuple[int, int]] | None = None):  # type: ignore[no-untyped-def]
    def note(done: int, total: int) -> None:
        if progress is not None:
            progress.append((done, total))

    evaluator = Evaluator(sampler, Scores(), GATE)
    return await evaluator.evaluate(prompts(count), incumbent=None, candidate="new", seed=1, progress=note)


async def test_a_better_candidate_passes_with_both_answers_at_hand() -> None:
    sampler, progress = Answers(), []
    evaluation = await evaluate(sampler, progress=progress)  # type: ignore[arg-type]
    assert evaluation.verdict.decision is Decision.PASS
    assert evaluation.verdict.numbers["difference"] == pytest.approx(0.7)
    assert [pair.prompt_id for pair in evaluation.pairs] == [f"p{n}" for n in range(64)]
    assert evaluation.answers == (("bad", "good"),) * 64
    assert progress == [(32, 64), (64, 64)]
    assert sampler.asked == [(None, BATCH_PROMPTS), ("new", BATCH_PROMPTS)] * 2


async def test_with_too_few_prompts_nothing_is_asked() -> None:
    sampler = Answers()
    evaluation = await evaluate(sampler, count=63)
    assert evaluation.verdict.decision is Decision.INCONCLUSIVE
    assert (sampler.asked, evaluation.pairs, evaluation.answers) == ([], (), ())


async def test_lengths_and_truncation_reach_the_gate() -> None:
    overrides = {("new", f"p{n}"): Answer("good", 30, "length") for n in range(4)}
    evaluation = await evaluate(Answers(overrides))
    assert evaluation.pairs[0].candidate_truncated
    assert evaluation.pairs[0].candidate_tokens == 30
    assert not evaluation.pairs[4].candidate_truncated
    assert evaluation.verdict.decision is Decision.FAIL


@pytest.mark.parametrize("model", [None, "new"])
@pytest.mark.parametrize("answer", [Answer("", 0, REFUSED), Answer("unscorable", 3, "stop")])
async def test_a_refused_or_unscorable_prompt_leaves_both_sides(model: str | None, answer: Answer) -> None:
    few = await evaluate(Answers({(model, f"p{n}"): answer for n in range(6)}))
    assert [pair.prompt_id for pair in few.pairs] == [f"p{n}" for n in range(6, 64)]
    assert len(few.answers) == 58
    assert few.verdict.decision is Decision.PASS
    many = await evaluate(Answers({(model, f"p{n}"): answer for n in range(7)}))
    assert many.verdict.decision is Decision.INCONCLUSIVE


async def test_an_answer_that_cannot_be_had_is_no_verdict() -> None:
    class Down(Answers):
        async def answer(self, prompts: Sequence[Prompt], *, model: str | None) -> Sequence[Answer]:
            raise UpstreamError("down")

    with pytest.raises(UpstreamError):
        await evaluate(Down())


async def test_an_evaluation_does_not_print_answers() -> None:
    assert "good" not in repr(await evaluate(Answers()))
