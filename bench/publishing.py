"""Where a benchmark's numbers go: a table for people, a JSON file for programs."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_DIRECTORY = Path(__file__).parent / "results"


def published(name: str) -> list[dict[str, Any]]:
    """The rows of results/<name>.json; none before the first run."""
    path = _DIRECTORY / f"{name}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.is_file() else []
    return rows


def publish(name: str, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """Print `rows` as a table and write them with `summary` and the machine to results/<name>.json."""
    table = Table(*rows[0], title=name)
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 240).print(table)
    _DIRECTORY.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    content = {**summary, "rows": list(rows), "machine": machine}
    (_DIRECTORY / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
