"""The demo, as a newcomer runs it: a real model becomes measurably better on prompts it never trained on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_SECONDS = 1200


@pytest.mark.vllm
@pytest.mark.timeout(LIMIT_SECONDS + 120)
def test_the_demo_promotes_a_better_model(tmp_path: Path) -> None:
    report_path = tmp_path / "demo.json"
    command = [sys.executable, "-m", "tao_daemon", "demo", "--once", "--report", str(report_path)]
    command += ["--time-limit", str(LIMIT_SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS + 100, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    report = json.loads(report_path.read_text())
    low, high = report["difference_ci95"]
    assert 0 < low <= report["difference"] <= high
    assert report["adapter_score"] > report["base_score"]
    assert report["adapter"].startswith("r0000")
    assert report["live_errors"] == 0, "live questions through the gateway saw no error"
    assert report["live_requests"] > 0
