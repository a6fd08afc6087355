"""Folders that cannot be trained are told apart before torch is loaded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning.checkpoints import base_digest, check_base, check_start, context_tokens


def adapter(folder: Path, config: object) -> Path:
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_digest_is_that_of_the_weights_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "b.safetensors").write_bytes(b"second")
    (tmp_path / "a.safetensors").write_bytes(b"first")
    (tmp_path / "config.json").write_text("{}")
    assert base_digest(tmp_path) == hashlib.sha256(b"firstsecond").hexdigest()
    check_base(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_half_a_base_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(TrainingError, match=r"set training.base_model"):
        check_base(tmp_path)


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({}, None),
        ({"max_position_embeddings": 8192}, 8192),
        ({"max_position_embeddings": 8192, "sliding_window": 512}, 512),
        ({"max_position_embeddings": 8192, "sliding_window": 512, "use_sliding_window": False}, 8192),
        ({"text_config": {"max_position_embeddings": 2048, "sliding_window": None}}, 2048),
    ],
)
def test_context_is_what_positions_and_window_allow(tmp_path: Path, config: Any, limit: int | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert context_tokens(tmp_path) == limit


def test_a_start_adapter_of_the_same_shape_is_fine(tmp_path: Path) -> None:
    check_start(adapter(tmp_path, {"r": 16, "lora_alpha": 32}), rank=16, alpha=32)


def test_a_start_adapter_of_another_rank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="rank 8 and alpha 16, the configuration says 32 and 16"):
        check_start(adapter(tmp_path, {"r": 8, "lora_alpha": 16}), rank=32, alpha=16)


def test_a_start_adapter_without_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="unreadable"):
        check_start(adapter(tmp_path, [1]), rank=32, alpha=16)


def test_a_pickled_start_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80")
    with pytest.raises(TrainingError, match=r"holds no adapter_model.safetensors"):
        check_start(tmp_path, rank=32, alpha=16)
