"""How much of a server's throughput the sampler gets: its tokens per second over those of a plain saturating load.

One vLLM with SmolLM2-135M-Instruct. The load sends the very bodies that the sampler sends, all of them at once, and
does nothing else; the sampler runs with its defaults, and waits for room in the server's queue. Runs alternate, each
pair with a seed of its own, so that a drifting machine hits both; seeds make the tokens of a pair nearly the same.

    python -m bench.sampler     # some 6 minutes → bench/results/sampler.json; bench/trainer.py runs it too
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp

from bench.publishing import publish
from tao_daemon.clients.vllm import VllmClient
from tao_daemon.config import Sampling
from tao_daemon.domain.completion import PLAIN
from tao_daemon.domain.ports import SamplingAids
from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.embedded.model import ensure_model
from tao_daemon.embedded.traffic import tickets
from tao_daemon.embedded.vllm_server import EmbeddedVllm
from tao_daemon.sampling.requests import sampling_body, seed_for
from tao_daemon.sampling.vllm_sampler import VllmSampler

PAIRS, PROMPTS, WARM_UP = 3, 32, 4
SEQUENCES = 32
"""Slots of the server: a pass is some ten times as many completions, so that its end weighs little."""
CONFIG = Sampling(completions=8, max_tokens=32)


def prompts_of(seed: int, count: int) -> list[Prompt]:
    return [
        Prompt(f"{seed}-{place}", {"messages": _messages(ticket.text)}, Source("bench", seed, place), received_at=0.0)
        for place, ticket in enumerate(islice(tickets(seed), count))
    ]


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Answer the customer briefly."}, {"role": "user", "content": text}]


async def saturating(client: VllmClient, prompts: Sequence[Prompt], seed: int) -> tuple[int, float]:
    """Tokens and seconds of all bodies at once."""
    bodies = [
        sampling_body(
            prompt.request,
            model="base",
            completions=CONFIG.completions,
            max_tokens=CONFIG.max_tokens,
            seed=seed_for(seed, prompt.id, PLAIN),
        )
        for prompt in prompts
    ]
    began = time.monotonic()
    answers = await asyncio.gather(*map(client.chat, bodies))
    seconds = time.monotonic() - began
    return sum(len(choice["token_ids"]) for answer in answers for choice in answer["choices"]), seconds


async def sampling(client: VllmClient, prompts: Sequence[Prompt], seed: int) -> tuple[int, float]:
    sampler = VllmSampler([client], CONFIG, base_model="base", answer_temperature=0.0, min_spread=0.05)
    began, tokens = time.monotonic(), 0
    async for group in sampler.sample(prompts, model=None, seed=seed, aids=SamplingAids()):
        tokens += sum(len(completion.token_ids) for completion in group.completions)
    return tokens, time.monotonic() - began


async def measure(pairs: int, count: int) -> list[dict[str, Any]]:
    model = await asyncio.to_thread(ensure_model)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="tao-sampler-") as directory:
        log = Path(directory) / "vllm.log"
        server = EmbeddedVllm(model, served_model_name="base", log_path=log, max_num_seqs=SEQUENCES)
        # No limit of connections: the load is to press the server, not to wait here.
        connector = aiohttp.TCPConnector(limit=0)
        async with server, aiohttp.ClientSession(connector=connector) as session:
            client = VllmClient(server.base_url, api_key=None, session=session)
            await saturating(client, prompts_of(0, WARM_UP), 0)
            for pair in range(1, pairs + 1):
                prompts = prompts_of(pair, count)
                for name, run in (("saturating", saturating), ("sampler", sampling)):
                    tokens, seconds = await run(client, prompts, pair)
                    rate = tokens / seconds
                    rows.append(
                        {"pair": pair, "load": name, "tokens": tokens, "seconds": seconds, "tokens_per_second": rate}
                    )
    return rows


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The fraction is the median over pairs of adjacent runs; its spread, the smallest and the largest."""
    rates = {
        name: [row["tokens_per_second"] for row in rows if row["load"] == name] for name in ("saturating", "sampler")
    }
    fractions = [own / most for own, most in zip(rates["sampler"], rates["saturating"], strict=True)]
    return {
        "sampler_fraction": statistics.median(fractions),
        "sampler_fraction_range": [min(fractions), max(fractions)],
        "tokens_per_second": {name: statistics.median(found) for name, found in rates.items()},
        "completions": CONFIG.completions,
        "max_tokens": CONFIG.max_tokens,
        "server_sequences": SEQUENCES,
        "concurrent_prompts": CONFIG.concurrent_prompts,
        "max_waiting_requests": CONFIG.max_waiting_requests,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    arguments = parser.parse_args()
    run(arguments.pairs, arguments.prompts)


def run(pairs: int = PAIRS, count: int = PROMPTS) -> None:
    rows = asyncio.run(measure(pairs, count))
    publish("sampler", rows, summarise(rows))


if __name__ == "__main__":
    main()
