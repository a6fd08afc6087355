"""The base model's folder, as far as it can be judged without torch.

Read-only. check → digest → context
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tao_daemon.domain.errors import TrainingError


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
