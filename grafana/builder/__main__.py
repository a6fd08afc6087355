"""Writes every dashboard's JSON.

python -m grafana.builder [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from grafana.builder.every import dashboards, written

FOLDER = Path(__file__).parents[1] / "dashboards"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, built in dashboards().items():
        (folder / f"{name}.json").write_text(written(built))
        print(folder / f"{name}.json")


main()
