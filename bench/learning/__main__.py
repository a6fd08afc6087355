"""`python -m bench.learning`: run what is missing of a plan, one JSON file per cell; interrupt it at any time.

    --plan screen|final|all   --only PART   --list   --winner COLUMN:SETTING   --trl SETTING

plan → cells that have no file → run, one after another → distances that were not measured → docs/results.md
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.learning import choice, columns, report
from bench.learning.heldout import divergence
from bench.learning.lab import Lab, lab
from bench.learning.plan import Cell, chosen, estimate, final, kind, screen
from bench.learning.tasks import TASKS
from tao_daemon.clients.storage import atomic_write_json

CELLS = Path(__file__).parents[1] / "results" / "learning" / "cells"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tao-daemon-bench" / "learning"
_USUAL_SECONDS = 240.0
"""Of a round, before any was measured."""


def main() -> None:
    # However we are told to end, children and servers end too: as for Ctrl-C, which a shell's background jobs ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    arguments = _arguments()
    cells = chosen(_plan(arguments), arguments.only)
    waiting = [cell for cell in cells if not _path(cell).is_file()]
    if arguments.list:
        for cell in cells:
            print(f"{'waits' if cell in waiting else 'done '}  {cell.name}")
        print(f"{len(waiting)} of {len(cells)} cells wait, about {_left(waiting)}")
        return
    asyncio.run(_run(waiting, cells))
    if arguments.plan == "all" and not arguments.only:
        second = [cell for cell in _final(arguments) if not _path(cell).is_file()]
        asyncio.run(_run(second, second))
    report.main()


async def _run(waiting: Sequence[Cell], cells: Sequence[Cell]) -> None:
    failed = []
    if not waiting and not _unmeasured(cells):
        return
    async with lab(CACHE) as running:
        for place, cell in enumerate(waiting):
            print(f"[{place + 1}/{len(waiting)}] {cell.name}; {_left(waiting[place:])} to go", flush=True)
            try:
                content = await columns.run(running, cell)
            except Exception as error:  # noqa: BLE001
                # One column that cannot run must not cost the others; it is run again next time.
                failed.append(cell.name)
                print(f"    failed: {type(error).__name__}: {error}", flush=True)
                continue
            atomic_write_json(_path(cell), {**_what(cell), **content, "machine": _machine(), "at": time.time()})
            last = content["rounds"][-1]["held_out"]
            print(
                f"    score {last['score']:.3f} [{last['score_low']:.3f}, {last['score_high']:.3f}], "
                f"{last['mean_tokens']:.1f} tokens, {content['seconds']:.0f} s",
                flush=True,
            )
        for cell in _unmeasured(cells):
            await _measure(running, cell)
    if failed:
        print("failed: " + ", ".join(failed))


async def _measure(running: Lab, cell: Cell) -> None:
    """Add the distances from the base model that the cell's file does not have yet."""
    path = _path(cell)
    content = json.loads(path.read_text())
    for each in content["rounds"]:
        if each["adapter"] and each["divergence"] is None:
            adapter = running.store.get(each["adapter"])
            each["divergence"] = await divergence(running, TASKS[cell.task], cell.seed, adapter)
    atomic_write_json(path, content)


def _unmeasured(cells: Sequence[Cell]) -> list[Cell]:
    """Cells whose adapters are still in the cache and whose distance is unknown."""
    found = []
    for cell in cells:
        if _path(cell).is_file():
            rounds = json.loads(_path(cell).read_text())["rounds"]
            names = [each["adapter"] for each in rounds if each["adapter"] and each["divergence"] is None]
            if names and all((CACHE / "adapters" / name).is_dir() for name in names):
                found.append(cell)
    return found


def _plan(arguments: argparse.Namespace) -> list[Cell]:
    return _final(arguments) if arguments.plan == "final" else screen()


def _final(arguments: argparse.Namespace) -> list[Cell]:
    """With the winner named, or chosen on the dev split from the screen that is there."""
    done = [json.loads(path.read_text()) for path in sorted(CELLS.glob("screen-*.json"))]
    winner = tuple(arguments.winner.split(":")) if arguments.winner else choice.winner(done)
    trl = arguments.trl or choice.best_setting(done, "trl_grpo")
    return final(*winner, trl)


def _path(cell: Cell) -> Path:
    return CELLS / f"{cell.name}.json"


def _left(waiting: Sequence[Cell]) -> str:
    seconds: dict[str, list[float]] = defaultdict(list)
    for path in CELLS.glob("*.json"):
        content = json.loads(path.read_text())
        seconds[kind(content["column"])].append(content["seconds"] / len(content["rounds"]))
    return f"{estimate(waiting, seconds, _USUAL_SECONDS) / 60:.0f} min"


def _what(cell: Cell) -> dict[str, Any]:
    """The cell without its number of rounds: the file has the rounds themselves."""
    return {name: value for name, value in asdict(cell).items() if name != "rounds"}


def _machine() -> dict[str, Any]:
    return {"cores": len(os.sched_getaffinity(0)), "machine": platform.machine(), "load": os.getloadavg()[0]}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", choices=("screen", "final", "all"), default="all")
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="of cells' names, in this order")
    parser.add_argument("--list", action="store_true", help="say what would run")
    parser.add_argument("--winner", metavar="COLUMN:SETTING", help="of the final; the screen's best by default")
    parser.add_argument("--trl", metavar="SETTING", help="of TRL in the final; the screen's best by default")
    return parser.parse_args()


if __name__ == "__main__":
    main()
