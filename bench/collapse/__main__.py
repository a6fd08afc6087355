"""`python -m bench.collapse`: go on with the rounds on the real model, then write the summary and the picture.

    --line gate|no_gate   --rounds N   --simulate (the scenarios instead)   --report (neither)

Interrupt it at any time: every round is a line in bench/results/collapse/, and the next start goes on after the last.
The adapters in between lie in the cache; without them a line begins anew when its file is removed.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from bench.collapse import real, report
from bench.learning.__main__ import CACHE
from bench.learning.lab import lab

FOLDER = Path(__file__).parents[1] / "results" / "collapse"
LINES = {line.name: line for line in (real.GATED, real.OPEN)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--line", choices=tuple(LINES), action="append", help="both by default, the gated one first")
    parser.add_argument("--rounds", type=int, default=1000, help="at most so many more of each line")
    parser.add_argument("--simulate", action="store_true", help="run every scenario with a simulated model")
    parser.add_argument("--report", action="store_true", help="only write the summary from what is there")
    arguments = parser.parse_args()
    if arguments.simulate:
        from bench.collapse import simulating

        asyncio.run(simulating.run(FOLDER / "simulation.json"))
    elif not arguments.report:
        asyncio.run(_rounds(arguments.line or list(LINES), arguments.rounds))
    report.main(FOLDER)


async def _rounds(names: list[str], rounds: int) -> None:
    async with lab(CACHE.parent / "collapse") as running:
        for name in names:
            await real.run(running, LINES[name], FOLDER / f"{name}.jsonl", rounds)


if __name__ == "__main__":
    main()
