"""Throughput of the trainer beside TRL's: one optimizer step on the same batch, in one run, and its share of the
machine's measured matrix product rate.

SmolLM2-135M, LoRA on all linear layers, rank 16; 2 prompts of 64, 512 and 1,024 tokens with 8 completions of
40 tokens each, made beforehand, so that nothing is sampled. Each side is a process of its own; they take turns, one
waiting while the other computes. The first step of each is not counted; its gradient must have the same norm on both.

    python -m bench.trainer                      # half an hour, most of it TRL at 1,024 → bench/results/trainer.json
    python -m bench.trainer --prompt-tokens 64   # two minutes; the other lengths' rows stay as they are
    python -m bench.trainer --dtype bfloat16     # where it is multiplied natively → bench/results/trainer_bfloat16.json

Beside it stands `sampler_fraction`, as bench/sampler.py measures it: the whole run measures it afterwards.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import sampler
from bench.publishing import publish, published
from tao_daemon.embedded.model import ensure_model

PROMPT_TOKENS = (64, 512, 1024)
GOALS = {64: 2.0, 512: 4.0, 1024: 5.0}
NORM_TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-2}
SIDES = ("tao", "trl")
RUNS = 2
SAMPLER_RESULTS = Path(__file__).parent / "results" / "sampler.json"


class Side:
    """One child process, asked by lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, what: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a side of the benchmark ended with status {self._process.wait(60)}; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def running(side: str, model: Path, prompt_tokens: int, dtype: str) -> Iterator[Side]:
    command = [sys.executable, "-m", "bench.trainer_sides", side, str(model), str(prompt_tokens), dtype]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield Side(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def measure(model: Path, prompt_tokens: int, dtype: str, runs: int) -> dict[str, Any]:
    """One row of the table: both sides in turn, medians."""
    with running("tao", model, prompt_tokens, dtype) as tao, running("trl", model, prompt_tokens, dtype) as trl:
        sides = {"tao": tao, "trl": trl}
        about = {name: side.ask("about") for name, side in sides.items()}
        first = {name: side.ask("step")["gradient_norm"] for name, side in sides.items()}
        if not math.isclose(first["tao"], first["trl"], rel_tol=NORM_TOLERANCE[dtype]):
            raise RuntimeError(f"the sides compute different gradients, of norm {first}")
        rates = tao.ask("rate")
        steps = [{name: side.ask("step") for name, side in sides.items()} for _ in range(runs)]
        again = tao.ask("rate")
        memory = {name: side.ask("memory")["peak_mib"] for name, side in sides.items()}
    seconds = {name: statistics.median(step[name]["seconds"] for step in steps) for name in SIDES}
    used = {name: statistics.median(step[name]["cpu_seconds"] for step in steps) for name in SIDES}
    done = about["tao"]["flops"] / seconds["tao"]
    return {
        "prompt_tokens": prompt_tokens,
        "tao_s": seconds["tao"],
        "trl_s": seconds["trl"],
        "ratio": seconds["trl"] / seconds["tao"],
        "goal": GOALS[prompt_tokens],
        "ratio_of_cpu_time": used["trl"] / used["tao"],
        "tao_tokens_per_s": about["tao"]["computed_tokens"] / seconds["tao"],
        "trl_tokens_per_s": about["trl"]["computed_tokens"] / seconds["trl"],
        "matmul_fraction": done / max(rates[dtype], again[dtype]),
        "gflops": done / 1e9,
        "float32_gflops": max(rates["float32"], again["float32"]) / 1e9,
        "bfloat16_gflops": max(rates["bfloat16"], again["bfloat16"]) / 1e9,
        "tao_peak_mib": memory["tao"],
        "trl_peak_mib": memory["trl"],
        "tao_settings": about["tao"]["settings"],
        "trl_settings": about["trl"]["settings"],
    }


def by_prompt(rows: Sequence[dict[str, Any]], column: str) -> dict[str, float]:
    return {str(row["prompt_tokens"]): row[column] for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt-tokens", type=int, nargs="+", choices=PROMPT_TOKENS, help="these lengths alone")
    parser.add_argument("--dtype", choices=tuple(NORM_TOLERANCE), default="float32", help="of the frozen base")
    parser.add_argument("--runs", type=int, default=RUNS, help="counted steps of each side")
    arguments = parser.parse_args()
    model = ensure_model()
    for prompt_tokens in arguments.prompt_tokens or PROMPT_TOKENS:
        _publish(arguments.dtype, measure(model, prompt_tokens, arguments.dtype, arguments.runs))
    if arguments.prompt_tokens is None and arguments.dtype == "float32":
        sampler.run()
        _publish(arguments.dtype)


def _publish(dtype: str, *new: dict[str, Any]) -> None:
    """With the rows of other lengths that are there: what was measured is not lost to an interruption."""
    name = "trainer" if dtype == "float32" else f"trainer_{dtype}"
    known = published(name)
    by_length = {int(row["prompt_tokens"]): row for row in (*known, *new)}
    rows = [by_length[length] for length in sorted(by_length)]
    summary = {
        "ratio_to_trl": by_prompt(rows, "ratio"),
        "ratio_of_cpu_time": by_prompt(rows, "ratio_of_cpu_time"),
        "matmul_fraction": by_prompt(rows, "matmul_fraction"),
        "sampler_fraction": _sampler_fraction(),
        "peak_mib": {"tao": by_prompt(rows, "tao_peak_mib"), "trl": by_prompt(rows, "trl_peak_mib")},
        "dtype": dtype,
        "note": "matmul_fraction: 4 operations per frozen parameter and token really computed, after sharing, against "
        "the measured rate of dtype; the LoRA's own products and attention are not counted as work done.",
    }
    publish(name, rows, summary)


def _sampler_fraction() -> float | None:
    if not SAMPLER_RESULTS.is_file():
        return None
    fraction: float = json.loads(SAMPLER_RESULTS.read_text())["sampler_fraction"]
    return fraction


if __name__ == "__main__":
    main()
