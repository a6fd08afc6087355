"""Packing: every completion token is predicted once, from exactly the tokens before it in its own sequence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.learning.packing import Pack, pack_group, sees

TOKENS = st.lists(st.integers(0, 50), min_size=1, max_size=6)
GROUPS = st.tuples(TOKENS, st.lists(TOKENS, min_size=1, max_size=5), st.integers(1, 20))


def context(pack: Pack, predictor: int) -> list[int]:
    """The tokens that the prediction at `predictor` depends on, in order of their positions."""
    seen = [key for key in range(len(pack.input_ids)) if sees(pack, predictor, key)]
    assert [pack.positions[key] for key in seen] == list(range(len(seen)))
    return [pack.input_ids[key] for key in seen]


@given(GROUPS)
def test_each_token_is_predicted_from_its_own_prefix(drawn: tuple[list[int], list[list[int]], int]) -> None:
    prompt, completions, limit = drawn
    predicted: list[list[int]] = [[] for _ in completions]
    for pack in pack_group(prompt, completions, limit):
        for predictor, target, owner in zip(pack.predictors, pack.targets, pack.owners, strict=True):
            assert context(pack, predictor) == prompt + predicted[owner]
            predicted[owner].append(target)
    assert predicted == completions


@given(GROUPS)
def test_packs_keep_to_the_limit_unless_one_completion_alone_exceeds_it(
    drawn: tuple[list[int], list[list[int]], int],
) -> None:
    prompt, completions, limit = drawn
    packs = pack_group(prompt, completions, limit)
    for pack in packs:
        with_inputs = {owner for owner in pack.owners if len(completions[owner]) > 1}
        assert len(pack.input_ids) <= limit or len(with_inputs) <= 1
    assert [o for pack in packs for o in dict.fromkeys(pack.owners)] == list(range(len(completions)))


def test_the_prompt_is_computed_once() -> None:
    (pack,) = pack_group([7, 8, 9], [[1, 2], [3], [4, 5, 6]], 100)
    assert pack.input_ids == (7, 8, 9, 1, 4, 5)
    assert pack.positions == (0, 1, 2, 3, 3, 4)
    assert pack.segments == (0, 0, 0, 1, 3, 3)
    assert pack.predictors == (2, 3, 2, 2, 4, 5)
    assert pack.targets == (1, 2, 3, 4, 5, 6)
    assert pack.owners == (0, 0, 1, 2, 2, 2)


def test_a_long_group_is_split_and_repeats_its_prompt() -> None:
    packs = pack_group([7, 8], [[1, 2, 3], [4, 5, 6], [0, 0, 0]], 6)
    assert [pack.input_ids for pack in packs] == [(7, 8, 1, 2, 4, 5), (7, 8, 0, 0)]
    assert packs[1].owners == (2, 2, 2)


@pytest.mark.parametrize(("prompt", "completions"), [([], [[1]]), ([1], [[1], []])])
def test_nothing_to_predict_from_is_refused(prompt: list[int], completions: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        pack_group(prompt, completions, 10)
