"""What panels have in common here: units, colours, sizes, and the selector that every query carries.

A panel is a value (`Panel`): a title, a width and height in Grafana's 24-column grid, and the SDK's builder for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as values
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

S = 'job=~"$job", instance=~"$instance"'
"""The template variables, as labels: between the braces of every selector."""
SOURCE = values.DataSourceRef(type_val="prometheus", uid="${datasource}")

_AT_LEAST = {"none": 1, "short": 1, "cps": 0.1, "reqps": 0.1, "percentunit": 0.05, "s": 0.1}
"""How far an axis reaches at least, by unit: without it a line of zeros is drawn from 0 to 100."""
GREEN, YELLOW, RED, BLUE, PURPLE, GREY = "green", "#EAB839", "red", "blue", "purple", "#808080"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are named: Prometheus' labels in {{braces}}."""

    expr: str
    legend: str
    instant: bool = False
    """Only the series of now: for names, of which a time range has had several."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel, not yet placed: widths and heights in cells of Grafana's grid (24 columns, 30 pixels each high)."""

    title: str
    builder: Any
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


Builder = TypeVar("Builder", timeseries.Panel, stat.Panel, bargauge.Panel, table.Panel)


def thresholds(*steps: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Colours from a value on; the first step has None, for everything below."""
    return (
        dashboard.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=color) for value, color in steps])
    )


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    height: int = 7,
    stacked: bool = False,
    steps: bool = False,
    low: float | None = 0,
    high: float | None = None,
    decimals: int | None = None,
    colors: Mapping[str, str] | None = None,
) -> Panel:
    """Lines over time. `steps` for what holds its value until it changes; `stacked` for parts of a whole."""
    panel = (
        timeseries.Panel()
        # A part that is 0 would draw its line on top of the others.
        .line_width(0 if stacked else 1.5)
        .fill_opacity(70 if stacked else 8)
        .show_points(values.VisibilityMode.AUTO)
        .point_size(4)
        .span_nulls(60_000)
        .line_interpolation(values.LineInterpolation.STEP_AFTER if steps else values.LineInterpolation.LINEAR)
        .tooltip(common.VizTooltipOptions().mode(values.TooltipDisplayMode.MULTI).sort(values.SortOrder.DESCENDING))
        .legend(
            common.VizLegendOptions()
            .display_mode(values.LegendDisplayMode.LIST)
            .placement(values.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(values.StackingMode.NORMAL).group("A"))
    if low is not None:
        panel.min(low)
    if high is not None:
        panel.max(high)
    elif unit in _AT_LEAST and low is not None and not decimals:
        panel.axis_soft_max(_AT_LEAST[unit])
    if decimals is not None:
        panel.decimals(decimals)
    for name, color in (colors or {}).items():
        fixed = model.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})
        panel.override_by_name(name, [fixed])
    return _panel(panel, title, description, unit, queries, width, height)


def number(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *steps: tuple[float | None, str],
    width: int = 4,
    height: int = 4,
    decimals: int | None = None,
    words: Mapping[str, tuple[str, str]] | None = None,
    named: bool = False,
    graph: bool = True,
) -> Panel:
    """One large value, coloured by thresholds. `words` says values in words, with colours; `named` shows the legend
    instead of the value."""
    panel = (
        stat.Panel()
        .graph_mode(values.BigValueGraphMode.AREA if graph and not named else values.BigValueGraphMode.NONE)
        .color_mode(values.BigValueColorMode.VALUE)
        .text_mode(values.BigValueTextMode.NAME if named else values.BigValueTextMode.AUTO)
        .justify_mode(values.BigValueJustifyMode.CENTER)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .thresholds(thresholds(*(steps or ((None, BLUE),))))
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    )
    if decimals is not None:
        panel.decimals(decimals)
    if words:
        options = {
            value: model.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(words.items())
        }
        panel.mappings([model.ValueMap(options=options)])
    return _panel(panel, title, description, unit, [query], width, height)


def otherwise(expr: str, label: str, text: str) -> str:
    """The expression with a text where the label is empty or missing."""
    return f'label_replace({expr}, "{label}", "{text}", "{label}", "")'


def rows(
    title: str, description: str, query: Query, columns: Mapping[str, str], *, width: int = 12, height: int = 5
) -> Panel:
    """A table with a row per series; `columns` are the labels that are shown, in order, and their headings."""
    target = prometheus.Dataquery().expr(query.expr).instant().format(PromQueryFormat.TABLE).ref_id("A")
    shown = {name: index for index, name in enumerate(columns)}
    organize = {
        "excludeByName": {"Time": True, "Value": True}
        | {name: True for name in ("__name__", "job") if name not in shown},
        "indexByName": shown,
        "renameByName": dict(columns),
    }
    panel = (
        table.Panel()
        .show_header(True)
        .with_target(target.datasource(SOURCE))
        .with_transformation(model.DataTransformerConfig(id_val="organize", options=organize))
    )
    return Panel(title, panel.title(title).description(description).datasource(SOURCE), width, height)


def _panel(
    panel: Builder, title: str, description: str, unit: str, queries: Sequence[Query], width: int, height: int
) -> Panel:
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter)
        panel.with_target((target.instant() if query.instant else target.range()).datasource(SOURCE))
    panel.title(title).description(description).unit(unit).datasource(SOURCE)
    return Panel(title, panel, width, height)
