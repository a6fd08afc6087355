"""torch belongs to the trainer process alone, and even there only after the batch was found good."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "subprocess_trainer",
        "worker",
        "job",
        "job_folders",
        "advantage",
        "packing",
        "contract",
        "divergence_contract",
        "probes",
        "dev_split",
        "course",
        "memory",
        "heap",
        "batching",
        "objectives.registry",
        "place",
    ],
)
def test_importing_this_loads_no_torch(module: str) -> None:
    code = (
        f"import sys, tao_daemon.learning.{module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
