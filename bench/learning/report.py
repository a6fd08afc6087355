"""`python -m bench.learning.report`: docs/results.md and its pictures, from the cells that are there.

What is written by hand stays: the text between the two markers is read from the old file and put back.

cells → tables and pictures → docs/results.md
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from bench.learning import pictures
from bench.learning.columns import LABELLED_RATES, TAO_DEFAULTS
from bench.learning.lab_settings import ALPHA, RANK
from bench.learning.plan import (
    COMPLETIONS,
    DEV_PROMPTS,
    DRIFT_PROMPTS,
    FINAL_ROUNDS,
    GATE,
    HELD_OUT_PROMPTS,
    OWN_ROUNDS,
    PROMPTS,
)
from bench.learning.tables import BASE, Cells, markdown, rows, table, versus
from bench.learning.tasks import TASKS
from tao_daemon.clients.storage import atomic_write_bytes

ROOT = Path(__file__).parents[2]
CELLS = ROOT / "bench" / "results" / "learning" / "cells"
PAGE = ROOT / "docs" / "results.md"
PICTURES = ROOT / "docs" / "pictures" / "results"
BEGIN, END = "<!-- written by hand: begin -->", "<!-- written by hand: end -->"
_UNWRITTEN = "To be written once all cells of the final plan are there."


def main() -> None:
    """Write page and pictures; nothing without cells."""
    cells = [json.loads(path.read_text()) for path in sorted(CELLS.glob("*.json"))]
    if not cells:
        print(f"no cells in {CELLS}; run python -m bench.learning first")
        return
    old = PAGE.read_text() if PAGE.is_file() else ""
    atomic_write_bytes(PAGE, page(cells, by_hand(old)).encode())
    print(f"{PAGE.relative_to(ROOT)}: {len(cells)} cells")


def page(cells: Cells, written: str) -> str:
    """The whole page; draws the pictures that it shows."""
    plans: defaultdict[tuple[str, str], list[dict[str, object]]] = defaultdict(list)
    for cell in cells:
        plans[cell["plan"], cell["task"]].append(dict(cell))
    parts = [_head(cells), _tasks()]
    screened = [(task, found) for (plan, task), found in plans.items() if plan == "screen"]
    if screened:
        parts.append("## Screen: every column, one round, one seed")
        parts += [_section("screen", task, found) for task, found in screened]
    final = [(task, found) for (plan, task), found in plans.items() if plan == "final" and _is_told(found)]
    if final:
        parts.append("## Final: rounds in a row")
        parts.append(
            f"Ours runs {OWN_ROUNDS} rounds of {PROMPTS} prompts, labelled fine-tuning {FINAL_ROUNDS['labelled']}, "
            f"TRL {FINAL_ROUNDS['trl_grpo']}. Ours goes through the daemon's gate: a candidate serves, "
            f"and is trained on further, only when it is surely better by the task's own scorers on {GATE.prompts} "
            "fresh prompts. Two columns are compared after as many rounds as both have."
        )
        parts.append(_verdicts(final))
        parts += [_section("final", task, found) for task, found in final]
    parts.append(f"## Where labelled fine-tuning wins, and why\n\n{BEGIN}\n{written}\n{END}")
    parts.append(_reading())
    return "\n\n".join(parts) + "\n"


def _is_told(cells: Cells) -> bool:
    """Whether there is anything to compare with the base model."""
    return any(cell["column"] != BASE for cell in cells)


def by_hand(old: str) -> str:
    """What stands between the markers of the old page."""
    found = old.partition(BEGIN)[2].partition(END)[0].strip()
    return found or _UNWRITTEN


def _head(cells: Cells) -> str:
    cores = sorted({cell["machine"]["cores"] for cell in cells})
    hours = sum(cell["seconds"] for cell in cells) / 3600
    load = statistics.median(cell["machine"]["load"] for cell in cells)
    return f"""# Results

Does a round make the model better at what it is asked, without labels? And how does that compare with fine-tuning on
labels, and with TRL's GRPO? SmolLM2-135M-Instruct on {"/".join(map(str, cores))} CPU cores, three tasks whose truth a
program knows; training sees rewards alone. Every number of the tables comes from a file in
`bench/results/learning/cells/`.

```
make bench NAME=learning                          # what is missing of the screen, then of the final; resumes
make bench NAME=learning ARGS="--plan screen --list"
python -m bench.learning.report                   # this page, from the cells that are there
```

The cells here took {hours:.1f} hours; the median load of the machine at their end was {load:.1f}."""


def _tasks() -> str:
    body = [
        [f"**{task.title}**", task.what, ", ".join(f"`{s.type}`" for s in task.scorers), task.reward_is,
         ", ".join(f"`{s.type}`" for s in task.strategies)]
        for task in TASKS.values()
    ]  # fmt: skip
    header = ("task", "what is asked", "scorers", "the reward is", "strategies")
    return f"""## Tasks and columns

{markdown(header, body)}

Prompts are generated from a seed; train, dev and held-out draw their names, numbers and words from disjoint pools.

{_columns()}

A setting names what it changes: `lr1e-3` the learning rate, `clip4` `clip_high` (TRL: `epsilon_high`) 4 instead of
0.28, `beta0.05` `policy_temperature`, `epochs4` the passes over a round's completions (2), `labels8` how
many gold answers there are instead of one per prompt, `prompts64` how many prompts the round has. LoRA rank {RANK},
alpha {ALPHA}, all linear layers, everywhere.
A round is {PROMPTS} prompts with {COMPLETIONS} completions each, the plain ones at temperature 1."""


def _columns() -> str:
    rates = ", ".join(f"{rate:g}" for rate in LABELLED_RATES)
    ours = ", ".join(f"`{name} = {value}`" for name, value in TAO_DEFAULTS.items())
    columns = {
        "base": "the model as it is",
        "labelled": (
            "LoRA fine-tuning on gold answers to the same prompts, from the base model on all prompts so far; learning "
            f"rate ({rates}) and epochs (2, 4, 8) chosen by the score on {DEV_PROMPTS} labelled dev prompts more"
        ),
        "trl_grpo": (
            "TRL's `GRPOTrainer`: same rewards, LoRA and number of completions; it generates by itself, afresh from "
            "the current policy at every step, where a round has one frozen batch"
        ),
        "tao_…": (
            f"a round of this project by its own parts: vLLM, sampler, scorers, trainer; {ours}, the rest by default"
        ),
        "tao_…_strategies": (
            "about as many completions, half of each prompt's or more by the task's exploration strategies, cooler "
            "than the plain ones; the first eight prompts have no example to be shown yet"
        ),
    }
    return markdown(("column", "what it is"), [[f"`{name}`", what] for name, what in columns.items()])


def _section(plan: str, task: str, cells: Cells) -> str:
    found = rows(cells)
    title = TASKS[task].title
    parts = [f"### {title}", table(found)]
    pictures.scores(PICTURES / f"{plan}-{task}.svg", title, found)
    parts.append(f"![Held-out score per column](pictures/results/{plan}-{task}.svg)")
    if plan == "final":
        columns: defaultdict[str, list[dict[str, object]]] = defaultdict(list)
        for cell in cells:
            columns[cell["column"]].append(dict(cell))
        pictures.rounds(PICTURES / f"rounds-{task}.svg", title, columns)
        parts.append(f"![Held-out score after each round](pictures/results/rounds-{task}.svg)")
    if pictures.distance(PICTURES / f"distance-{plan}-{task}.svg", title, found):
        parts.append(f"![Score against distance](pictures/results/distance-{plan}-{task}.svg)")
    return "\n\n".join(parts)


def _verdicts(final: Sequence[tuple[str, Cells]]) -> str:
    """Ours against labels and against TRL, prompt by prompt."""
    body = []
    for task, cells in final:
        ours = next((cell["column"] for cell in cells if cell["column"].startswith("tao_")), None)
        if ours:
            compared = [versus(cells, ours, other) for other in (BASE, "labelled", "trl_grpo")]
            words = (f"{each[0]} after {_rounds(each[1])}" if each else "—" for each in compared)
            body.append([TASKS[task].title, f"`{ours}`", *words])
    return markdown(("task", "column", "against base", "against labels", "against TRL"), body) if body else ""


def _rounds(number: int) -> str:
    return f"{number} round" + ("s" if number > 1 else "")


def _reading() -> str:
    return f"""## How to read it

- **Held-out score**: the truth, on {HELD_OUT_PROMPTS} prompts per seed that nothing was trained or chosen on; greedy
  answers, as a client gets them. 95 % percentile bootstrap over prompts; several seeds' prompts are pooled, and the
  range of the seeds' means stands in brackets. It says nothing about other training seeds than those that ran.
- **Gain** is paired, prompt by prompt. **All right** is the share of answers without any fault. **Reward** is what the
  task's own scorers say of the held-out answers: where it rises and the score does not, the reward was fooled.
- Settings, the winner, and rate and epochs of `labelled` are chosen on the dev split, never on held-out prompts. Ours
  chooses its weights within a training by the KL budget. The
  winner is the best on the dev split; the product's default settings where they are within a standard error of it.
- **Seconds** are wall-clock on whatever else the machine did; compare them with care. Sampling of a batch that several
  columns share is counted for each of them. TRL generates with transformers, ours samples with vLLM. For `labelled` the
  seconds are those of the chosen setting alone.
- **KL to base**: {DRIFT_PROMPTS} held-out prompts answered at temperature 1 by the adapter, full vocabulary, summed per
  answer, in nats."""


if __name__ == "__main__":
    main()
