"""The processor check reads a `/proc/cpuinfo` text and says what follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tao_daemon.embedded.platform import (
    CpuFeatures,
    parse_cpuinfo,
    preferred_dtype,
    read_features,
    require_supported,
)
from tao_daemon.embedded.processes import EmbeddedError

NONE = CpuFeatures(avx2=False, avx512f=False, avx512_bf16=False, amx_bf16=False)


def cpuinfo(flags: str) -> str:
    return f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n"


def test_flags_are_read_as_whole_words() -> None:
    features = parse_cpuinfo(cpuinfo("fpu avx avx2 avx512f_like"))
    assert features == CpuFeatures(avx2=True, avx512f=False, avx512_bf16=False, amx_bf16=False)


def test_all_features_are_found() -> None:
    features = parse_cpuinfo(cpuinfo("avx2 avx512f avx512_bf16 amx_bf16"))
    assert features == CpuFeatures(avx2=True, avx512f=True, avx512_bf16=True, amx_bf16=True)


@pytest.mark.parametrize("text", ["", "processor: 0\nFeatures: fp asimd\n", "vmx flags: avx2\n"])
def test_no_flags_line_means_no_feature(text: str) -> None:
    assert parse_cpuinfo(text) == NONE


def test_a_machine_without_cpuinfo_has_no_feature(tmp_path: Path) -> None:
    assert read_features(tmp_path / "absent") == NONE


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("avx2", "float32"),
        ("avx2 avx512f", "float32"),
        ("avx2 avx512f avx512_bf16", "bfloat16"),
        ("avx2 amx_bf16", "bfloat16"),
    ],
)
def test_bfloat16_only_where_the_hardware_multiplies_it(flags: str, dtype: str) -> None:
    assert preferred_dtype(parse_cpuinfo(cpuinfo(flags))) == dtype


def test_a_machine_without_avx2_is_refused_with_the_feature_and_a_remedy() -> None:
    require_supported(parse_cpuinfo(cpuinfo("avx2")))
    with pytest.raises(EmbeddedError, match=r"avx2.*\[serving\]"):
        require_supported(NONE)
