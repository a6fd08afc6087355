"""The safetensors format, read without torch: a JSON header (name, type, shape, byte range), then raw data.

Pure: bytes in, descriptions and arrays out. Layout: 8 bytes little-endian header length, header, data
(https://github.com/huggingface/safetensors#format). Stricter than the library where a trainer's own file
never needs the freedom: known float types only, no key twice, no byte outside a tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
"""The library's own limit."""
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file. `start` and `stop` are byte positions in the data section."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def parse_json(text: bytes | str) -> Any:
    """JSON without what makes readers disagree: a key given twice, and NaN. Raises ValueError."""
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def parse_header(header: bytes, data_bytes: int) -> tuple[Tensor, ...]:
    """Tensors in order of their bytes, which they fill without gap or overlap. Raises ValueError."""
    entries = parse_json(header)
    if not isinstance(entries, dict):
        raise ValueError("the header is not a JSON object")
    tensors = [_tensor(name, entry) for name, entry in entries.items() if name != "__metadata__"]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.stop))
    position = 0
    for tensor in tensors:
        if tensor.start != position:
            raise ValueError(f"tensor {tensor.name!r} starts at byte {tensor.start}, expected {position}")
        position = tensor.stop
    if position != data_bytes:
        raise ValueError(f"the tensors fill {position} bytes, the file holds {data_bytes}")
    return tuple(tensors)


def as_float(tensor: Tensor, data: NDArray[np.uint8]) -> NDArray[np.float32] | NDArray[np.float16]:
    """The tensor's values as a flat array; `data` is the whole data section."""
    raw = np.ascontiguousarray(data[tensor.start : tensor.stop])
    if tensor.dtype == "BF16":
        return (raw.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw.view("<f4") if tensor.dtype == "F32" else raw.view("<f2")


def _tensor(name: str, entry: Any) -> Tensor:
    if not isinstance(entry, Mapping):
        raise ValueError(f"tensor {name!r} has no description")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if dtype not in _ITEM_BYTES:
        raise ValueError(f"tensor {name!r} has type {dtype!r}; use one of {', '.join(_ITEM_BYTES)}")
    sizes, ends = _whole_numbers(shape), _whole_numbers(offsets)
    if sizes is None or ends is None or len(ends) != 2:
        raise ValueError(f"tensor {name!r} has no valid shape and data_offsets")
    start, stop = ends
    if stop - start != math.prod(sizes) * _ITEM_BYTES[dtype]:
        raise ValueError(f"tensor {name!r} of shape {shape} cannot have {stop - start} bytes")
    return Tensor(name, dtype, sizes, start, stop)


def _whole_numbers(value: Any) -> tuple[int, ...] | None:
    valid = isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)
    return tuple(value) if valid else None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("JSON holds a key twice")
    return entries


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"JSON holds {name}, which is no number")
