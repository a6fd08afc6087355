"""The control API, fuzzed from its own OpenAPI document: no server error, no answer that the document does not know."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from bench.past import a_round, remember, settling
from tao_daemon.config import load_config
from tao_daemon.domain.events import AdapterVerified

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "ignored_auth,unsupported_method,negative_data_rejection"
)


@pytest.mark.parametrize("scope", ["admin", "read"])
def test_fuzzing_finds_no_server_error_and_no_undocumented_answer(
    make_site: Callable[..., Any], scope: str, tmp_path: Path
) -> None:
    site = make_site(kafka={"enabled": False})
    events = [*settling(1, "a1"), *a_round(2, "a2"), AdapterVerified("a2", 1)]
    remember(load_config(site.write_config()), events, count(time.time() - len(events)))
    site.start()
    token = site.issue("fuzzer", scope)
    tool = shutil.which("schemathesis", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert tool is not None, "schemathesis belongs to the tools that `bash deploy/install.sh dev` installs"
    command = [
        tool,
        "run",
        f"{site.control_url}/openapi.json",
        f"--header=Authorization: Bearer {token}",
        "--exclude-path=/v1/events",  # never ends: tests/integration/control reads it
        f"--checks={CHECKS}",
        "--phases=coverage,fuzzing",
        "--max-examples=15",
        "--seed=1",
        "--request-timeout=70",  # longer than a long poll
        "--continue-on-failure",
        "--no-color",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:] + site.daemon.tail()
    assert site.status()["version"]
    assert site.run("audit", "verify").returncode == 0
