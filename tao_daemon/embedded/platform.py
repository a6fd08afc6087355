"""What this machine's processor can do, and what that means for the embedded stack; pure but for one reader."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tao_daemon.embedded.processes import EmbeddedError

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class CpuFeatures:
    """The instruction sets that decide whether the embedded stack runs, and in which dtype."""

    avx2: bool
    avx512f: bool
    avx512_bf16: bool
    amx_bf16: bool


def parse_cpuinfo(text: str) -> CpuFeatures:
    """Read the first processor's `flags` line of a `/proc/cpuinfo` text; no such line means no feature."""
    line = next((line for line in text.splitlines() if line.split(":")[0].strip() == "flags"), "")
    flags = set(line.partition(":")[2].split())
    return CpuFeatures(
        avx2="avx2" in flags,
        avx512f="avx512f" in flags,
        avx512_bf16="avx512_bf16" in flags,
        amx_bf16="amx_bf16" in flags,
    )


def read_features(path: Path = CPUINFO) -> CpuFeatures:
    """The features of this machine; a system without /proc/cpuinfo has none that we can vouch for."""
    try:
        return parse_cpuinfo(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return parse_cpuinfo("")


def require_supported(features: CpuFeatures) -> None:
    """Raise when the embedded vLLM would die of an illegal instruction instead of starting."""
    if not features.avx2:
        raise EmbeddedError(
            "the embedded vLLM needs a Linux x86-64 processor with avx2, and /proc/cpuinfo does not list it: "
            "run on another machine (in a virtual machine, pass the host's CPU through), "
            "or point [serving] at a vLLM that runs elsewhere"
        )


def preferred_dtype(features: CpuFeatures) -> str:
    """bfloat16 where the hardware multiplies it; emulated, it is over a hundred times slower than float32."""
    return "bfloat16" if features.avx512_bf16 or features.amx_bf16 else "float32"
