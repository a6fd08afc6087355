"""Turns the GGUF of SmolLM2 into a checkpoint folder: `python -m tao_daemon.embedded.convert_model SRC DST [--tiny]`.

A child process of `model.py`, and the only file here with torch and transformers. DST receives weights in bfloat16,
config, tokenizer and chat template; with `--tiny`, a random two-layer model with the same tokenizer. Invariants:
nothing is fetched; lines on stdout that start with `progress: ` are for the caller.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

PROGRESS_PREFIX = "progress: "


def main() -> None:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, metavar="SRC")
    parser.add_argument("target", type=Path, metavar="DST")
    parser.add_argument("--tiny", action="store_true", help="random weights, 2 layers: for tests of the plumbing")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    options = parser.parse_args()
    _report("loading torch and transformers")
    _read_gguf_once()
    tokenizer = _tokenizer(options.source)
    model = _tiny_model(options.seed) if options.tiny else _converted_model(options.source)
    _report("writing the checkpoint")
    model.save_pretrained(options.target)
    tokenizer.save_pretrained(options.target)


def _report(text: str) -> None:
    print(PROGRESS_PREFIX + text, flush=True)


def _read_gguf_once() -> None:
    """transformers parses the file three times and builds the name map for every module; once takes a third."""
    import gguf

    for name in ("GGUFReader", "get_tensor_name_map"):
        setattr(gguf, name, functools.cache(getattr(gguf, name)))


def _tokenizer(source: Path) -> Any:
    from transformers import AutoTokenizer

    _report("reading the tokenizer")
    return AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)


def _converted_model(source: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    _report("de-quantizing the weights")
    return AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        local_files_only=True,
    )


def _tiny_model(seed: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    _report("drawing random weights")
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=49_152,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        # The smallest that vLLM's CPU attention has a kernel for.
        head_dim=32,
        max_position_embeddings=8_192,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=False,
    )
    model: Any = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]
    # With a head of the usual size every token is equally likely, and no adapter could change that much.
    torch.nn.init.normal_(model.lm_head.weight, std=0.3)
    return model.to(torch.bfloat16)


if __name__ == "__main__":
    main()
