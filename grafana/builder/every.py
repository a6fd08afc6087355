"""All dashboards by file name, and how they are written."""

from __future__ import annotations

import json
from typing import Any

from grafana.builder.intake import intake
from grafana.builder.learning import learning
from grafana.builder.overview import overview
from grafana.builder.rollout import rollout


def dashboards() -> dict[str, dict[str, Any]]:
    """The JSON model of each, by the name of its file."""
    return {"overview": overview(), "learning": learning(), "rollout": rollout(), "intake": intake()}


def written(dashboard: dict[str, Any]) -> str:
    """As it is committed: indented, so that a change shows as one."""
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"
