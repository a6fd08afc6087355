"""The simulated model: what it says has the truth, the length and the signs of its kind; its numbers agree."""

from __future__ import annotations

import math
import random
import statistics

import pytest
import torch

from bench.collapse.kinds import FILLERS, FOOLING, KINDS, MAX_TOKENS, Kind, prompt, quality, text
from bench.collapse.scorers import verified
from bench.collapse.table import F, K, Table, divergence
from tao_daemon.domain.meters import is_refusal, is_repetitive
from tao_daemon.learning.packing import pack_group
from tao_daemon.scoring.decoys import is_degenerate

DRAWS = 4000


def moved() -> Table:
    """Not the base, in kinds and in fillers."""
    generator = torch.Generator().manual_seed(3)
    table = Table.base()
    with torch.no_grad():
        for parameter in table.parameters:
            parameter += 0.7 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return table


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_is_what_it_is_called(kind: Kind) -> None:
    rng = random.Random(kind.name)
    for number in range(50):
        fillers = rng.choices(range(F), k=kind.tokens - 1)
        asked = prompt(1, number).request
        said = text(asked, kind, fillers)
        assert verified(asked, said) == kind.truth
        assert is_refusal(said) == (kind.name == "refusing")
        assert is_repetitive(said) == (kind.name == "repeating")
        assert (said == "") == (kind.name == "empty")
    assert 1 <= kind.tokens <= MAX_TOKENS


def test_what_fools_the_judge_is_shown_to_it_and_stands_in_no_list() -> None:
    asked = prompt(1, 1)
    named = {kind.name: kind for kind in KINDS}
    fooling, right = (text(asked.request, named[name], [0] * (named[name].tokens - 1)) for name in ("fooling", "right"))
    assert fooling.startswith(FOOLING)
    assert not is_degenerate(fooling)
    assert quality(asked.user_text, fooling) > quality(asked.user_text, right)


def test_probabilities_of_kinds_are_a_distribution() -> None:
    assert math.isclose(sum(kind.probability for kind in KINDS), 1.0)
    assert math.isclose(Table.base().truth, sum(kind.probability * kind.truth for kind in KINDS))


def test_what_is_drawn_has_the_log_probabilities_that_packs_get() -> None:
    table, rng = moved(), random.Random(1)
    drawn = [table.speaker().draw(rng) for _ in range(12)]
    packs = pack_group([1, 2, 3], [tokens for tokens, _ in drawn], max_tokens=60)
    assert len(packs) > 1
    found = torch.cat([table.logprobs(pack) for pack in packs])
    assert found.requires_grad
    assert found.tolist() == pytest.approx([value for _, logprobs in drawn for value in logprobs])


def test_figures_are_those_of_many_draws() -> None:
    table, base, rng = moved(), Table.base(), random.Random(2)
    speaker, other = table.speaker(), base.speaker()
    drawn = [speaker.draw(rng) for _ in range(DRAWS)]
    lengths = [len(tokens) for tokens, _ in drawn]
    bits = [-sum(logprobs) for _, logprobs in drawn]
    ratios = [
        sum(logprobs) - other.logprobs[0][tokens[0]] - sum(other.logprobs[1 + tokens[0]][token] for token in tokens[1:])
        for tokens, logprobs in drawn
    ]
    assert statistics.fmean(lengths) == pytest.approx(table.tokens, rel=0.05)
    assert sum(bits) / sum(lengths) == pytest.approx(table.entropy, rel=0.05)
    assert statistics.fmean(KINDS[tokens[0]].truth for tokens, _ in drawn) == pytest.approx(table.truth, abs=0.03)
    assert statistics.fmean(ratios) == pytest.approx(
        divergence(table, base, base, answers=1, tokens=1).from_base, rel=0.05
    )
    assert divergence(table, table, base, answers=1, tokens=1).from_start == 0.0


def test_a_copy_is_the_same_and_learns_by_itself() -> None:
    table = moved()
    copy = table.copy()
    assert copy.same(table)
    with torch.no_grad():
        copy.parameters[1][0, 0] += 1e-12
    assert not copy.same(table)
    assert (len(KINDS), len(FILLERS)) == (K, F)
