"""The units of systemd are what systemd takes, and start what this program has."""

from __future__ import annotations

import configparser
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tao_daemon.config.file import load_config

pytestmark = pytest.mark.system

REPOSITORY = Path(__file__).parents[2]
UNITS = sorted((REPOSITORY / "deploy" / "systemd").glob("*.service"))


def service(unit: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(delimiters="=", interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(unit.read_text())
    return parser["Service"]


def test_there_is_one_for_each_process() -> None:
    assert [unit.name for unit in UNITS] == ["tao-daemon.service", "tao-gateway.service"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_it(unit: Path, tmp_path: Path) -> None:
    program = shlex.split(service(unit)["ExecStart"])[0]
    here = tmp_path / unit.name
    here.write_text(unit.read_text().replace(program, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", here], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_its_command_is_one_of_the_program(unit: Path) -> None:
    command = shlex.split(service(unit)["ExecStart"])[1:]
    done = subprocess.run(
        [sys.executable, "-m", "tao_daemon", *command], capture_output=True, text=True, timeout=60, check=False
    )
    missing = command[-1]
    assert done.returncode == int(service(unit)["RestartPreventExitStatus"])
    assert missing in done.stderr, "it got as far as reading the configuration"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_stop_has_the_time_that_the_program_takes(unit: Path) -> None:
    config = load_config(REPOSITORY / "config.toml")
    assert float(service(unit)["TimeoutStopSec"]) > config.daemon.shutdown_seconds
