"""The reward model's process: `python -m tao_daemon.scoring.reward_worker FOLDER`, the only entry of scoring to torch.

stdin carries one JSON request a line, stdout one JSON reply to each and nothing else. The process ends at once when
its stdin closes, whatever it computes: that is how it learns that its parent died. No reply quotes a text.

load → {"ready": …} | {"failed": reason} → {"answers": …} → {"scores": [raw, …], "tokens": n} | {"error": class} → …
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_ORPHANED = 3
MAX_BATCH_TOKENS = 8192
"""Of one forward pass, padding included; a single answer may exceed it."""
FREE_FACTOR = 2.0
"""A GPU is used when its free memory is so many times the weights' size: another process may own the rest."""

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def main(arguments: Sequence[str]) -> int:
    """Score until stdin closes; returns the exit status."""
    if len(arguments) != 1:
        print("usage: python -m tao_daemon.scoring.reward_worker FOLDER", file=sys.stderr)
        return EXIT_USAGE
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(waiting,), name="requests", daemon=True).start()
    os.environ.update(_OFFLINE)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads would take the cores from others
    replies = _claim_stdout()
    try:
        model = _Classifier(Path(arguments[0]))
    except Exception as error:  # noqa: BLE001 - told to the parent; nothing was read that could be quoted
        first = (str(error).splitlines() or [""])[0][:200]
        _say(replies, {"failed": f"{type(error).__name__}: {first}"})
        return EXIT_FAILED
    _say(replies, {"ready": model.device})
    while True:
        _say(replies, _reply(model, waiting.get()))


def _reply(model: _Classifier, line: bytes) -> dict[str, Any]:
    try:
        scores, tokens = model.scores(json.loads(line))
    except Exception as error:  # noqa: BLE001 - the class alone: a message may quote a text
        return {"error": type(error).__name__}
    return {"scores": scores, "tokens": tokens}


class _Classifier:
    """A sequence classifier with one output. Raises what torch and transformers raise, and ValueError."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._torch = torch
        self.device = _device(torch, folder)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32 if self.device == "cpu" else "auto",
            output_loading_info=True,
        )
        if model.config.num_labels != 1:
            raise ValueError(f"{model.config.num_labels} outputs; a reward model has one")
        if report["missing_keys"]:
            raise ValueError("the files lack weights of the classifier; is it a reward model?")
        self._model = model.to(self.device).eval()
        self._limit = int(getattr(model.config, "max_position_embeddings", 0) or 0)

    def scores(self, request: Mapping[str, Any]) -> tuple[list[float], int]:
        """Raw scores of the answers in their order, and the tokens read."""
        encoded = [self._encoded(request, answer) for answer in request["answers"]]
        longest = max(map(len, encoded), default=0)
        if self._limit and longest > self._limit:
            raise ValueError(f"{longest} tokens exceed the model's {self._limit}")
        found = [0.0] * len(encoded)
        for batch in _batches(encoded):
            for place, score in zip(batch, self._forward([encoded[place] for place in batch]), strict=True):
                found[place] = score
        return found, sum(map(len, encoded))

    def _encoded(self, request: Mapping[str, Any], answer: str) -> list[int]:
        """By the chat template where there is one and the request is a chat; else as a pair of texts."""
        if request["messages"] is not None and self._tokenizer.chat_template:
            messages = [*request["messages"], {"role": "assistant", "content": answer}]
            text = self._tokenizer.apply_chat_template(messages, tokenize=False)
            return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self._tokenizer(request["request"], answer)["input_ids"])

    def _forward(self, rows: Sequence[Sequence[int]]) -> list[float]:
        torch, length = self._torch, max(map(len, rows))
        pad = self._padding(rows)
        # Decoders find the last token of a row as the last that is not padding.
        self._model.config.pad_token_id = pad
        tokens = torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=self.device)
        with torch.inference_mode():
            logits = self._model(input_ids=tokens, attention_mask=mask).logits
        return [float(score) for score in logits[:, 0].float().cpu()]

    def _padding(self, rows: Sequence[Sequence[int]]) -> int:
        """The tokenizer's padding, or, where that is a token of the texts or is none, one that is not."""
        used = {token for row in rows for token in row}
        own = self._tokenizer.pad_token_id
        return own if own is not None and own not in used else min(set(range(len(used) + 1)) - used)


def _batches(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Places of the rows, long ones first, so that rows of one length share a pass."""
    batches: list[list[int]] = []
    for place in sorted(range(len(rows)), key=lambda place: -len(rows[place])):
        if batches and (len(batches[-1]) + 1) * len(rows[batches[-1][0]]) <= MAX_BATCH_TOKENS:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _device(torch: Any, folder: Path) -> str:
    if not torch.cuda.is_available():
        return "cpu"
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    free, _ = torch.cuda.mem_get_info()
    return "cuda" if free >= FREE_FACTOR * weights else "cpu"


def _say(replies: TextIO, reply: Mapping[str, Any]) -> None:
    print(json.dumps(reply), file=replies, flush=True)


def _claim_stdout() -> TextIO:
    """stdout for replies alone: whatever libraries print, from Python or C, goes to stderr from now on."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _read_requests(waiting: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        waiting.put(line)
    os._exit(EXIT_ORPHANED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
