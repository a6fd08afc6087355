"""The folders that training reads, base model and start adapter, as far as they can be judged without torch.

Read-only. check the base → its context → check the start adapter → digest
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tao_daemon.domain.errors import TrainingError
from tao_daemon.learning.contract import ADAPTER_CONFIG_FILE, ADAPTER_FILE


def check_base(folder: Path) -> None:
    """Raises TrainingError when the folder cannot be a base model; cheap, before anything heavy."""
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise TrainingError(
            f"base model folder {folder} holds no config.json with *.safetensors; "
            "set training.base_model to the folder whose weights vLLM serves"
        )


def base_digest(folder: Path) -> str:
    """SHA-256 over the contents of the base's *.safetensors files in order of name, as of `cat` over them."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def context_tokens(folder: Path) -> int | None:
    """Longest sequence that the model attends over as trained here, None when its config sets no limit.

    A packed attention mask takes the place of a sliding window, so a sequence must fit within the window.
    """
    try:
        data: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingError(f"{folder / 'config.json'} is not JSON: {error}") from None
    text = data.get("text_config", data)
    window = None if text.get("use_sliding_window") is False else text.get("sliding_window")
    return min((limit for limit in (text.get("max_position_embeddings"), window) if limit), default=None)


def check_adapter(folder: Path, what: str = "adapter") -> None:
    """Raises TrainingError when the folder holds no adapter in safetensors."""
    for name in (ADAPTER_FILE, ADAPTER_CONFIG_FILE):
        if not (folder / name).is_file():
            raise TrainingError(f"{what} {folder} holds no {name}; roll back to an adapter that exists")


def check_start(folder: Path, *, rank: int, alpha: int) -> None:
    """Raises TrainingError when the folder is no adapter in safetensors of this rank and alpha."""
    check_adapter(folder, "start adapter")
    try:
        config: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG_FILE).read_text(encoding="utf-8"))
        found = (config["r"], config["lora_alpha"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"start adapter {folder}: {ADAPTER_CONFIG_FILE} is unreadable ({error})") from None
    if found != (rank, alpha):
        raise TrainingError(
            f"start adapter {folder} has rank {found[0]} and alpha {found[1]}, the configuration says {rank} "
            f"and {alpha}; restore training.rank and training.alpha, or undo to the base model first"
        )
