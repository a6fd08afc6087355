"""Rows of panels become a dashboard: placed, with the variables, the rollout annotations and links to the others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from grafana_foundation_sdk.builders import dashboard, prometheus
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from grafana.builder.panels import BLUE, GREEN, RED, SOURCE, Row, S

COLUMNS = 24
TAG = "tao-daemon"

ANNOTATIONS = (
    ("Rollout", BLUE, f"max by (phase) (tao_rollout_phase{{{S}}}) == 1", "rollout: {{phase}}"),
    ("Settled", GREEN, f'sum(increase(tao_rollout_ended_total{{{S}, phase="settled"}}[1m])) > 0', "rollout settled"),
    (
        "Taken back",
        RED,
        f'sum by (phase) (increase(tao_rollout_ended_total{{{S}, phase=~"aborted|rolled_back"}}[1m])) > 0',
        "rollout {{phase}}",
    ),
)
"""Name, colour, PromQL, title. Grafana joins the points of one series into a region."""


def build(uid: str, title: str, description: str, rows: Sequence[Row], *, window: str = "now-6h") -> dict[str, Any]:
    """The dashboard as Grafana's JSON model."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .time(window, "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .editable()
        .variables(_variables())
        .annotations(_annotations())
        .link(
            dashboard.DashboardLink("tao-daemon")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
    )
    top, ids = 0, count(1)
    for row in rows:
        place = model.GridPos(h=1, w=COLUMNS, x=0, y=top)
        made.with_row(dashboard.Row(row.title).id(next(ids)).grid_pos(place))
        top = _place(made, row, top + 1, ids)
    found: dict[str, Any] = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    return found


def _place(made: dashboard.Dashboard, row: Row, top: int, ids: Iterator[int]) -> int:
    """Put the row's panels side by side, in as many lines as they need; the first free line below."""
    left = tallest = 0
    for panel in row.panels:
        if left + panel.width > COLUMNS:
            top, left, tallest = top + tallest, 0, 0
        place = model.GridPos(h=panel.height, w=panel.width, x=left, y=top)
        made.with_panel(panel.builder.id(next(ids)).grid_pos(place))
        left, tallest = left + panel.width, max(tallest, panel.height)
    return top + tallest


def _variables() -> list[Any]:
    """Where the data is, and which processes: by default all that export tao-daemon's metrics."""
    every = model.VariableOption(selected=True, text="All", value="$__all")
    asked = {
        "job": "label_values(tao_build_info, job)",
        "instance": 'label_values(tao_build_info{job=~"$job"}, instance)',
    }
    queries = [
        dashboard.QueryVariable(name)
        .label(name)
        .datasource(SOURCE)
        .query({"query": query, "refId": name})
        .definition(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .include_all(True)
        .all_value(".*")
        .multi(True)
        .current(every)
        for name, query in asked.items()
    ]
    return [dashboard.DatasourceVariable("datasource").label("data source").type("prometheus"), *queries]


def _annotations() -> list[Any]:
    return [
        dashboard.AnnotationQuery()
        .name(name)
        .enable(True)
        .icon_color(color)
        .datasource(SOURCE)
        .title_format(title)
        .tag_keys("phase")
        .target(prometheus.Dataquery().expr(expr).ref_id("Anno"))
        for name, color, expr, title in ANNOTATIONS
    ]
