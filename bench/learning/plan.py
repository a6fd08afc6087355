"""Which cells the proof table has, in which order they run, and how long they take. Pure.

A cell is one column on one task with one seed and one setting; it ends with one JSON file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tao_daemon.config import Gate

TASKS = ("extraction", "arithmetic", "formatting")
SCREEN_TASK = "formatting"
PROMPTS = 32
"""Training prompts per round."""
COMPLETIONS = 8
"""Completions per prompt, strategies included; a few less where there is no example to show yet."""
DEV_PROMPTS = 48
HELD_OUT_PROMPTS = 128
GATE = Gate()
"""The product's; its held-out prompts are fresh ones in each round of the final. It measures no divergence here."""
DRIFT_PROMPTS = 64
"""Held-out prompts on whose sampled answers the KL divergence is measured."""
FINAL_SEEDS = (1, 2)
FINAL_ROUNDS = {"base": 0, "trl_grpo": 1, "labelled": 2}
"""Ours has OWN_ROUNDS. TRL generates with transformers: a round of it takes as long as three of ours."""
OWN_ROUNDS = 3

Settings = Mapping[str, float]
"""What differs from the product's defaults, by the name of the setting it belongs to."""

TAO_SETTINGS: Mapping[str, Mapping[str, Settings]] = {
    "clipped_policy_gradient": {
        "lr1e-3": {"learning_rate": 1e-3},
        "lr1e-3-clip4": {"learning_rate": 1e-3, "clip_high": 4.0},
        "lr5e-4": {"learning_rate": 5e-4},
        "lr5e-4-epochs4": {"learning_rate": 5e-4, "epochs": 4},
        "lr1e-3-clip4-epochs4": {"learning_rate": 1e-3, "clip_high": 4.0, "epochs": 4},
        "lr5e-4-prompts64": {"learning_rate": 5e-4, "prompts": 64},
        "lr5e-4-prompts128": {"learning_rate": 5e-4, "prompts": 128},
    },
    "grpo": {
        "lr1e-3": {"learning_rate": 1e-3},
        "lr5e-4": {"learning_rate": 5e-4},
        "lr1e-3-clip4": {"learning_rate": 1e-3, "clip_high": 4.0},
    },
    "oapl": {
        "lr1e-3": {"learning_rate": 1e-3},
        "lr1e-3-beta0.05": {"learning_rate": 1e-3, "policy_temperature": 0.05},
    },
    "raft": {
        "lr1e-3": {"learning_rate": 1e-3},
        "lr5e-4-epochs4": {"learning_rate": 5e-4, "epochs": 4},
        "lr1e-3-epochs4": {"learning_rate": 1e-3, "epochs": 4},
    },
}
"""Of the first of each both columns run, plain and with strategies; of the others those with strategies. Those with
more `prompts` say what traffic without labels is worth, and compete with no other."""
TRL_SETTINGS: Mapping[str, Settings] = {
    "lr1e-3": {"learning_rate": 1e-3, "num_iterations": 2},
    "lr1e-3-clip4": {"learning_rate": 1e-3, "num_iterations": 2, "epsilon_high": 4.0},
    "lr5e-4": {"learning_rate": 5e-4, "num_iterations": 2},
}
LABELLED_SETTINGS: Mapping[str, Settings] = {"dev": {}, "labels8": {"labels": 8}, "labels16": {"labels": 16}}
"""Labelled fine-tuning chooses its learning rate and epochs itself, on the dev split. With fewer labels than a round
has prompts it says what labels are worth."""
PLAIN, STRATEGIES = "plain", "strategies"
FIRST_PROMPTS = 8
"""Of the first round of a column with strategies: asked first, so that the others can be shown the best of them."""


@dataclass(frozen=True, slots=True)
class Cell:
    """`column` is base, labelled, trl_grpo, or tao_<algorithm> with _strategies where it explores."""

    plan: str
    task: str
    column: str
    setting: str
    seed: int
    rounds: int

    @property
    def name(self) -> str:
        return "-".join((self.plan, self.task, self.column, self.setting or "none", f"s{self.seed}"))

    @property
    def algorithm(self) -> str:
        """Of a tao_ column."""
        return self.column.removeprefix("tao_").removesuffix(f"_{STRATEGIES}")

    @property
    def sampled(self) -> str:
        """How a tao_ column samples: `plain` or `strategies`."""
        return STRATEGIES if self.column.endswith(f"_{STRATEGIES}") else PLAIN

    @property
    def gated(self) -> bool:
        """Whether a candidate serves, and is trained on, only after the gate: as in the daemon. The screen compares the
        candidates themselves."""
        return self.plan == "final" and self.column.startswith("tao_")

    @property
    def prompts(self) -> int:
        """Of each round."""
        return int(self.settings.get("prompts", PROMPTS))

    @property
    def settings(self) -> Settings:
        match self.column:
            case "base":
                return {}
            case "labelled":
                return LABELLED_SETTINGS[self.setting]
            case "trl_grpo":
                return TRL_SETTINGS[self.setting]
            case _:
                return TAO_SETTINGS[self.algorithm][self.setting]


def screen(task: str = SCREEN_TASK, seed: int = 0) -> list[Cell]:
    """Every column once, then the other settings."""
    exploring = {f"tao_{algorithm}_{STRATEGIES}": tuple(settings) for algorithm, settings in TAO_SETTINGS.items()}
    plain = {f"tao_{algorithm}": tuple(settings)[:1] for algorithm, settings in TAO_SETTINGS.items()}
    baselines = {"base": ("",), "labelled": tuple(LABELLED_SETTINGS), "trl_grpo": tuple(TRL_SETTINGS)}
    columns = {**baselines, **exploring, **plain}
    first = [(column, settings[0]) for column, settings in columns.items()]
    later = [(column, setting) for column, settings in reversed(columns.items()) for setting in settings[1:]]
    return [
        Cell("screen", task, column, setting, seed, 0 if column == "base" else 1) for column, setting in first + later
    ]


def final(winner: str, setting: str, trl_setting: str) -> list[Cell]:
    """Base, labels, TRL and the winner, on all tasks: seed by seed, so that an early end leaves whole tables. TRL's
    later seeds come last."""
    columns = (("base", ""), (winner, setting), ("labelled", "dev"), ("trl_grpo", trl_setting))
    cells = [
        Cell("final", task, column, chosen, seed, FINAL_ROUNDS.get(column, OWN_ROUNDS))
        for seed in FINAL_SEEDS
        for task in TASKS
        for column, chosen in columns
    ]
    return sorted(cells, key=lambda cell: cell.column == "trl_grpo" and cell.seed != FINAL_SEEDS[0])


def chosen(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """Those whose name contains one of `only`, in the order of `only`; all without any."""
    return list(dict.fromkeys(cell for part in only or ("",) for cell in cells if part in cell.name))


def kind(column: str) -> str:
    """Cells of a kind take about as long per round."""
    return "tao" if column.startswith("tao_") else column


def estimate(waiting: Iterable[Cell], measured: Mapping[str, Sequence[float]], usual: float) -> float:
    """Seconds for the waiting cells: by the mean seconds per round of their kind, `usual` where none was measured."""

    def per_round(cell: Cell) -> float:
        known = measured.get(kind(cell.column)) or (usual,)
        return sum(known) / len(known)

    return sum(per_round(cell) * max(cell.rounds, 1) for cell in waiting)
