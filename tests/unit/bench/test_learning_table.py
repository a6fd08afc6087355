"""The proof table: its plan, what the screen decides, and how cells become rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from bench.learning import choice, plan, tables
from bench.learning.report import BEGIN, END, by_hand


def cell(
    column: str,
    scores: Sequence[float],
    *,
    seed: int = 0,
    setting: str = "",
    dev: float = 0.0,
    tokens: float = 10.0,
    kl: float | None = None,
    before: Sequence[Sequence[float]] = (),
    verdicts: Sequence[str] = (),
) -> dict[str, Any]:
    rounds = [
        {
            "round": number,
            "completions": 256,
            "sampling_seconds": 1.0,
            "scoring_seconds": 2.0,
            "training_seconds": 3.0,
            "details": {"verdict": verdicts[number - 1]} if verdicts else {},
            "held_out": {
                "score": sum(each) / len(each),
                "exact": 0.5,
                "reward": 0.25,
                "mean_tokens": tokens,
                "scores": list(each),
            },
            "dev": {"score": dev, "score_low": dev - 0.1, "score_high": dev + 0.1, "mean_tokens": tokens},
            "divergence": None if kl is None else {"from_base": kl},
        }
        for number, each in enumerate((*before, scores), start=1)
    ]
    return {"column": column, "setting": setting, "seed": seed, "rounds": rounds}


class TestPlan:
    def test_every_cell_has_a_name_of_its_own(self) -> None:
        cells = [*plan.screen(), *plan.final("tao_grpo_strategies", "lr1e-3", "lr1e-3")]
        assert len({each.name for each in cells}) == len(cells)

    def test_the_screen_has_every_algorithm_with_and_without_strategies(self) -> None:
        found = {(each.algorithm, each.sampled) for each in plan.screen() if each.column.startswith("tao_")}
        assert found == {(a, s) for a in plan.TAO_SETTINGS for s in (plan.PLAIN, plan.STRATEGIES)}

    def test_second_settings_come_last(self) -> None:
        cells = plan.screen()
        columns = [each.column for each in cells]
        first = len(set(columns))
        assert len(set(columns[:first])) == first

    def test_an_early_end_of_the_final_leaves_whole_tables(self) -> None:
        cells = plan.final("tao_oapl", "lr1e-3", "lr5e-4")
        half = cells[: len(cells) // len(plan.FINAL_SEEDS)]
        assert {each.task for each in half} == set(plan.TASKS)
        assert {each.column for each in half} == {"base", "labelled", "trl_grpo", "tao_oapl"}
        assert {each.seed for each in half} == {plan.FINAL_SEEDS[0]}

    def test_every_cell_knows_its_settings(self) -> None:
        for each in [*plan.screen(), *plan.final("tao_raft_strategies", "lr5e-4-epochs4", "lr5e-4")]:
            assert isinstance(dict(each.settings), dict)

    def test_only_chooses_by_a_part_of_the_name(self) -> None:
        assert {each.column for each in plan.chosen(plan.screen(), ["base", "labelled"])} == {"base", "labelled"}
        assert plan.chosen(plan.screen(), []) == plan.screen()

    def test_the_estimate_counts_rounds_by_kind(self) -> None:
        waiting = [plan.Cell("final", "arithmetic", "tao_grpo", "lr1e-3", 1, 3), plan.Cell("x", "y", "base", "", 1, 0)]
        assert plan.estimate(waiting, {"tao": [10.0, 20.0]}, 7.0) == 3 * 15.0 + 7.0


class TestChoice:
    def test_by_the_dev_split_and_never_by_held_out_prompts(self) -> None:
        cells = [
            cell("tao_grpo", [1.0, 1.0], setting="a", dev=0.5),
            cell("tao_oapl", [0.0, 0.0], setting="b", dev=0.6),
            cell("labelled", [1.0, 1.0], dev=0.9),
        ]
        assert choice.winner(cells) == ("tao_oapl", "b")

    @pytest.mark.parametrize(("usual", "chosen"), [(0.56, choice.DEFAULT), (0.54, ("tao_oapl", "b"))])
    def test_the_defaults_where_they_are_as_good_within_the_error(self, usual: float, chosen: tuple[str, str]) -> None:
        column, setting = choice.DEFAULT
        cells = [cell(column, [0.0], setting=setting, dev=usual), cell("tao_oapl", [1.0], setting="b", dev=0.6)]
        assert choice.winner(cells) == chosen

    def test_of_equals_the_shorter_answers(self) -> None:
        cells = [
            cell("tao_grpo", [1.0], setting="a", dev=0.5, tokens=30),
            cell("tao_raft", [1.0], setting="b", dev=0.5, tokens=20),
        ]
        assert choice.winner(cells) == ("tao_raft", "b")

    def test_a_column_that_did_not_run_has_no_best_setting(self) -> None:
        with pytest.raises(ValueError, match="no cell of trl_grpo"):
            choice.best_setting([cell("base", [0.0])], "trl_grpo")


class TestRows:
    def test_base_first_then_by_score(self) -> None:
        cells = [cell("raft", [0.2, 0.2]), cell("base", [0.5, 0.5]), cell("labelled", [0.9, 0.9])]
        assert [row.column for row in tables.rows(cells)] == ["base", "labelled", "raft"]

    def test_the_gain_is_paired(self) -> None:
        before, after = [0.0, 1.0] * 20, [0.1, 1.0] * 20
        row = tables.rows([cell("base", before), cell("labelled", after)])[1]
        assert row.gain is not None
        assert row.gain.mean == pytest.approx(0.05)
        # Unpaired, the interval would be some 0.3 wide.
        assert row.gain.high - row.gain.low < 0.05
        assert row.gain.low > 0

    def test_pairs_are_of_one_seed(self) -> None:
        cells = [
            cell("base", [0.0, 1.0], seed=1),
            cell("base", [1.0, 0.0], seed=2),
            cell("labelled", [0.0, 1.0], seed=1),
            cell("labelled", [1.0, 0.0], seed=2),
        ]
        row = tables.rows(cells)[1]
        assert row.gain == tables.Estimate(0.0, 0.0, 0.0)
        assert row.by_seed == (0.5, 0.5)

    def test_a_seed_without_its_base_is_not_compared(self) -> None:
        rows = tables.rows([cell("labelled", [1.0, 1.0], seed=3)])
        assert rows[0].gain is None

    def test_costs_are_sums_over_rounds_and_means_over_seeds(self) -> None:
        cells = [cell("tao_grpo", [1.0, 0.0], seed=seed, before=[[0.0, 0.0]]) for seed in (1, 2)]
        (row,) = tables.rows(cells)
        assert (row.completions, row.sampling, row.scoring, row.training) == (512, 2.0, 4.0, 6.0)

    def test_rounds_that_passed_the_gate_are_counted(self) -> None:
        one = cell("tao_grpo", [1.0], seed=1, before=[[0.0]], verdicts=("pass", "inconclusive"))
        two = cell("tao_grpo", [1.0], seed=2, before=[[0.0]], verdicts=("pass", "pass"))
        assert tables.rows([one, two])[0].passed == 1.5
        assert tables.rows([cell("labelled", [1.0])])[0].passed is None

    def test_a_distance_counts_only_when_every_seed_has_it(self) -> None:
        both = [cell("x", [1.0, 0.0], seed=1, kl=2.0), cell("x", [1.0, 0.0], seed=2, kl=4.0)]
        assert tables.rows(both)[0].kl == 3.0
        assert tables.rows([both[0], cell("x", [1.0, 0.0], seed=2)])[0].kl is None

    def test_versus_pairs_two_columns(self) -> None:
        cells = [cell("a", [1.0, 1.0], seed=1), cell("b", [0.5, 0.5], seed=1), cell("b", [0.0, 0.0], seed=2)]
        found = tables.versus(cells, "a", "b")
        assert found is not None
        assert (found[0].mean, found[1]) == (0.5, 1)
        assert tables.versus(cells, "a", "c") is None

    def test_versus_compares_after_as_many_rounds_as_both_have(self) -> None:
        three = cell("a", [1.0, 1.0], before=[[0.25, 0.25], [0.75, 0.75]])
        two, base = cell("b", [0.5, 0.5], before=[[0.0, 0.0]]), cell("base", [0.1, 0.1])
        found, whole = tables.versus([three, two], "a", "b"), tables.versus([three, base], "a", "base")
        assert found is not None
        assert (found[0].mean, found[1]) == (0.25, 2)
        assert whole is not None
        assert (whole[0].mean, whole[1]) == (0.9, 3)

    def test_the_curve_has_a_point_per_round(self) -> None:
        cells = [cell("a", [1.0, 1.0], seed=seed, before=[[0.0, 1.0]]) for seed in (1, 2)]
        assert [point.mean for point in tables.curve(cells)] == [0.5, 1.0]


class TestPage:
    def test_what_is_written_by_hand_stays(self) -> None:
        assert by_hand(f"# x\n{BEGIN}\nLabels win where …\n{END}\n## y") == "Labels win where …"

    def test_a_new_page_says_that_it_is_not_written_yet(self) -> None:
        assert "To be written" in by_hand("")
