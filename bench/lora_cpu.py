"""The grouped LoRA operations of the embedded server against vLLM's stock CPU fallback, on one layer.

Shapes of SmolLM2-135M's gate-up projection (576 → 2 × 1536), rank 16. Alternating runs, medians, the ratio in one run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper import punica_cpu

from bench.publishing import publish
from tao_daemon.embedded.lora_cpu import grouped_wrapper

SLOTS, RANK, WIDTH, SLICES = 4, 16, 576, (1536, 1536)
STOCK = next(kind for kind in punica_cpu.PunicaWrapperCPU.__mro__ if "tao_grouped" not in vars(kind))
CASES = {
    "prefill, 48 prompts x 75 tokens, one adapter": ([(10, 75)] * 48, True),
    "decode, 64 sequences, one adapter": ([(10, 1)] * 64, False),
    "decode, 64 sequences, two adapters and the base": ([(10, 1)] * 24 + [(11, 1)] * 24 + [(0, 1)] * 16, False),
    "decode, 64 sequences, no adapter": ([(0, 1)] * 64, False),
}
RUNS = 5


def wrapper(kind: type[Any], requests: list[tuple[int, int]], prefill: bool) -> Any:
    made = kind(8192, 128, "cpu")
    tokens = tuple(adapter for adapter, length in requests for _ in range(length))
    mapping = LoRAMapping(tokens, tuple(adapter for adapter, _ in requests), is_prefill=prefill)
    made.update_metadata(mapping, [10, 11, None, None], SLOTS, 49_152)
    return made


def seconds(operation: Callable[[], None]) -> float:
    started = time.perf_counter()
    operation()
    return time.perf_counter() - started


def measure(requests: list[tuple[int, int]], prefill: bool) -> tuple[float, float]:
    """Median seconds of (stock, grouped), run in turn so that a drifting machine hits both."""
    rows = sum(length for _, length in requests)
    x = torch.randn(rows, WIDTH)
    a = tuple(torch.randn(SLOTS, 1, RANK, WIDTH) for _ in SLICES)
    b = tuple(torch.randn(SLOTS, 1, size, RANK) for size in SLICES)
    times: dict[str, list[float]] = {"stock": [], "grouped": []}
    kinds = {"stock": wrapper(STOCK, requests, prefill), "grouped": wrapper(grouped_wrapper(STOCK), requests, prefill)}
    for run in range(RUNS + 1):
        for name, made in kinds.items():
            y = torch.zeros(rows, sum(SLICES))
            taken = seconds(lambda made=made, y=y: made.add_lora_linear(y, x, a, b, 1.0, SLICES))  # type: ignore[misc]
            if run:
                times[name].append(taken)
    return statistics.median(times["stock"]), statistics.median(times["grouped"])


def main() -> None:
    rows = []
    for name, (requests, prefill) in CASES.items():
        stock, grouped = measure(requests, prefill)
        rows.append({"case": name, "stock_ms": stock * 1e3, "grouped_ms": grouped * 1e3, "ratio": stock / grouped})
    publish("lora_cpu", rows, {"ratio": {str(row["case"]): row["ratio"] for row in rows}})


if __name__ == "__main__":
    main()
