"""Preflight: a good adapter passes, and no single change to one goes through unseen."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tao_daemon.domain.adapter import Fingerprint, FingerprintProbe
from tao_daemon.registry import preflight
from tao_daemon.registry.tensors import Tensor, as_float, parse_header, parse_json

RANK = 8
MODULES = [f"model.layers.{layer}.self_attn.{name}" for layer in range(2) for name in ("q_proj", "v_proj")]
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "r": RANK,
    "lora_alpha": 16,
    "bias": "none",
    "target_modules": ["q_proj", "v_proj"],
    "modules_to_save": None,
    "use_dora": False,
    "rank_pattern": {},
    "init_lora_weights": True,
}


def shapes() -> dict[str, tuple[int, ...]]:
    names: dict[str, tuple[int, ...]] = {}
    for module in MODULES:
        names[f"base_model.model.{module}.lora_A.weight"] = (RANK, 6)
        names[f"base_model.model.{module}.lora_B.weight"] = (4, RANK)
    return names


def header_of(entries: dict[str, tuple[int, ...]], dtype: str = "F32") -> tuple[dict[str, Any], int]:
    size = {"F32": 4, "F16": 2, "BF16": 2}[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in entries.items():
        end = position + math.prod(shape) * size
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    return header, position


def tensors_of(entries: dict[str, tuple[int, ...]], dtype: str = "F32") -> tuple[tuple[Tensor, ...], int]:
    header, size = header_of(entries, dtype)
    return parse_header(json.dumps(header).encode(), size), size


def test_a_good_adapter_has_no_problem() -> None:
    tensors, size = tensors_of(shapes())
    data = np.random.default_rng(0).normal(size=size // 4).astype("<f4").view(np.uint8)
    names = ["adapter_model.safetensors", "adapter_config.json", "fingerprint.json", "README.md"]
    assert preflight.check_files(names) == []
    assert preflight.check_config(CONFIG, max_rank=16) == []
    assert preflight.check_tensors(tensors, CONFIG) == []
    assert preflight.check_values(tensors, data) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"r": 16}, "above the servers' 8"),
        ({"r": 12}, "r is 12"),
        ({"r": True}, "r is True"),
        ({"r": "8"}, "r is '8'"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"lora_alpha": math.nan}, "lora_alpha"),
        ({"lora_alpha": 0}, "lora_alpha"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
    ],
)
def test_a_config_that_vllm_cannot_serve_is_refused(change: dict[str, Any], said: str) -> None:
    problems = preflight.check_config({**CONFIG, **change}, max_rank=8)
    assert len(problems) == 1
    assert said in problems[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("adapter_model.bin", "pickle"),
        ("training_args.PT", "pickle"),
        ("optimizer.pkl", "pickle"),
        ("added_tokens.json", "does not belong"),
        ("handler.py", "does not belong"),
    ],
)
def test_a_file_that_an_adapter_does_not_need_is_refused(name: str, said: str) -> None:
    problems = preflight.check_files([*preflight.REQUIRED_FILES, name])
    assert problems == [problem for problem in problems if name in problem and said in problem] != []


@settings(deadline=None)
@given(st.sampled_from(sorted(shapes())), st.data())
def test_any_change_to_one_tensor_name_or_shape_is_refused(name: str, data: st.DataObject) -> None:
    entries = shapes()
    change = data.draw(st.sampled_from(["drop", "rename", "prefix", "rank", "flat", "module"]))
    shape = entries.pop(name)
    if change == "rename":
        entries[name.replace("lora_", data.draw(st.sampled_from(["lora_embedding_", "LoRA_", "lora-"])))] = shape
    elif change == "prefix":
        entries[name.removeprefix(data.draw(st.sampled_from(["base_model.", "base_model.model."])))] = shape
    elif change == "rank":
        other = data.draw(st.integers(0, 40).filter(lambda rank: rank != RANK))
        entries[name] = tuple(other if size == RANK else size for size in shape)
    elif change == "flat":
        entries[name] = (math.prod(shape),)
    elif change == "module":
        entries[name.replace("_proj", "_other")] = shape
    tensors, _ = tensors_of(entries)
    assert preflight.check_tensors(tensors, CONFIG) != []


def test_target_modules_and_tensors_must_agree() -> None:
    tensors, _ = tensors_of(shapes())
    assert "k_proj" in preflight.check_tensors(tensors, {**CONFIG, "target_modules": ["q_proj", "v_proj", "k_proj"]})[0]
    assert "v_proj" in preflight.check_tensors(tensors, {**CONFIG, "target_modules": ["q_proj"]})[0]
    assert preflight.check_tensors(tensors, {**CONFIG, "target_modules": []}) != []
    assert preflight.check_tensors((), CONFIG) != []


@settings(deadline=None)
@given(
    st.sampled_from(["F32", "F16", "BF16"]),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.integers(min_value=0),
)
def test_one_bad_number_anywhere_is_found_and_its_tensor_named(dtype: str, bad: float, place: int) -> None:
    tensors, size = tensors_of(shapes(), dtype)
    if dtype == "F32":
        data = np.ones(size // 4, "<f4").view(np.uint8)
        raw = np.array([bad], "<f4").view(np.uint8)
    elif dtype == "F16":
        data = np.ones(size // 2, "<f2").view(np.uint8)
        raw = np.array([bad], "<f2").view(np.uint8)
    else:
        data = np.full(size // 2, 0x3F80, "<u2").view(np.uint8)
        raw = np.array([bad], "<f4").view(np.uint8)[2:]
    assert preflight.check_values(tensors, data) == []
    position = place % (size // raw.size) * raw.size
    data[position : position + raw.size] = raw
    hit = next(tensor for tensor in tensors if tensor.start <= position < tensor.stop)
    assert preflight.check_values(tensors, data) == [f"{hit.name!r} holds NaN or infinity"]


@pytest.mark.parametrize("half", ["A", "B"])
def test_an_adapter_that_changes_nothing_is_refused_and_one_that_changes_one_module_is_not(half: str) -> None:
    tensors, size = tensors_of(shapes())
    data = np.ones(size // 4, "<f4")
    zeroed = [tensor for tensor in tensors if f"lora_{half}" in tensor.name]
    for tensor in zeroed:
        data[tensor.start // 4 : tensor.stop // 4] = 0.0
    assert "equals the base" in preflight.check_values(tensors, data.view(np.uint8))[0]
    data[zeroed[-1].start // 4] = 1e-6
    assert preflight.check_values(tensors, data.view(np.uint8)) == []


def test_bfloat16_is_read_as_its_value() -> None:
    tensor = Tensor("x", "BF16", (3,), 0, 6)
    raw = np.array([0x3F80, 0xC000, 0x0000], "<u2").view(np.uint8)
    assert as_float(tensor, raw).tolist() == [1.0, -2.0, 0.0]


@settings(deadline=None)
@given(st.data())
def test_a_header_with_any_wrong_number_is_refused(data: st.DataObject) -> None:
    header, size = header_of(shapes())
    name = data.draw(st.sampled_from([key for key in header if key != "__metadata__"]))
    field = data.draw(st.sampled_from(["shape", "data_offsets"]))
    index = data.draw(st.integers(0, 1))
    old = header[name][field][index]
    header[name][field][index] = data.draw(
        st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.none()).filter(
            lambda value: value is not old and value != old
        )
    )
    with pytest.raises(ValueError, match=r"tensor|fill|JSON"):
        parse_header(json.dumps(header).encode(), size)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} trailing',
        b'{"a":7}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b"[" * 100_000,
    ],
)
def test_a_header_that_is_not_one_is_a_value_error(header: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_header(header, 4)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_never_more_than_a_value_error(header: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_header(header, 4)


@pytest.mark.parametrize("text", ['{"a":1,"a":2}', '{"a":NaN}', "[Infinity]", '{"x":{"y":1,"y":1}}'])
def test_json_that_readers_would_read_differently_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="JSON holds"):
        parse_json(text)


@pytest.mark.parametrize(
    "probe",
    [
        FingerprintProbe((1, 2, 3), 0, (-1.0, -1.0, -1.0), (-1.0, -1.0, -1.0)),
        FingerprintProbe((1, 2, 3), 3, (), ()),
        FingerprintProbe((1, 2, 3), 1, (-1.0,), (-1.0, -1.0)),
        FingerprintProbe((1, 2, 3), 1, (-1.0, math.nan), (-1.0, -1.0)),
        FingerprintProbe((1, 2, 3), 1, (-1.0, -1.0), (-1.0, -math.inf)),
        FingerprintProbe((1, 2, 3), 1, (-1.0, 0.5), (-1.0, -1.0)),
        FingerprintProbe((1, -2, 3), 1, (-1.0, -1.0), (-1.0, -1.0)),
    ],
)
def test_a_probe_that_cannot_be_compared_is_refused(probe: FingerprintProbe) -> None:
    good = FingerprintProbe((1, 2, 3), 1, (-1.0, -1.0), (-2.0, -0.5))
    assert preflight.check_fingerprint(Fingerprint((good,))) == []
    assert preflight.check_fingerprint(Fingerprint((good, probe)))[0].startswith("probe 1:")
    assert preflight.check_fingerprint(Fingerprint(())) != []
