"""The committed dashboards are the builder's, fit Grafana's own types, and ask for metrics that exist."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from grafana.builder.every import dashboards, written
from tests.promql import Metric, documented, queries, selectors

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "grafana" / "dashboards"
BUILT = dashboards()
FREE = (
    r"transformations/\d+/options/",  # a transformation's own options
    r"properties/\d+/value/",  # an override's value depends on the property
    r"mappings/\d+/options/",  # the values that are mapped
    r"templating/list/\d+/query/",  # a variable's query belongs to the data source
)
"""Where Grafana's types allow any key."""


@pytest.fixture(scope="module")
def schema() -> Draft7Validator:
    """Generated from the types of Grafana's SDK: `npm run schema` in grafana/preview."""
    return Draft7Validator(json.loads((ROOT / "grafana" / "schema.json").read_text()))


def keys(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every key of every object."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(node, dict):
            yield (*path, key)
        yield from keys(value, (*path, key))


def misspelt(dashboard: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    """A copy whose key at the path has one letter too many."""
    changed = copy.deepcopy(dashboard)
    node: Any = changed
    for part in path[:-1]:
        node = node[part]
    node[f"{path[-1]}x"] = node.pop(path[-1])
    return changed


@pytest.mark.parametrize("name", BUILT)
def test_the_committed_json_is_the_builders(name: str) -> None:
    committed = (FOLDER / f"{name}.json").read_text()
    assert committed == written(BUILT[name]), "run `python -m grafana.builder` and commit what it writes"


def test_no_other_dashboard_is_committed() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(BUILT)


@pytest.mark.parametrize("name", BUILT)
def test_it_fits_grafanas_types(name: str, schema: Draft7Validator) -> None:
    assert [error.message for error in schema.iter_errors(BUILT[name])] == []


def test_the_types_catch_a_misspelt_key_wherever_it_is(schema: Draft7Validator) -> None:
    """One key of every kind, misspelt, is refused: the check above can fail."""
    tried: set[str] = set()
    for dashboard in BUILT.values():
        for path in keys(dashboard):
            where = "/".join(map(str, path))
            kind = re.sub(r"/\d+", "/*", where)
            if kind in tried or any(re.search(free, where) for free in FREE):
                continue
            tried.add(kind)
            assert not schema.is_valid(misspelt(dashboard, path)), f"misspelling {where} goes unnoticed"
    assert len(tried) > 100


@pytest.mark.parametrize("name", BUILT)
def test_panels_have_their_own_place_within_the_grid(name: str) -> None:
    panels = BUILT[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"], panel["title"]) for panel in panels]
    for place, title in places:
        assert place["x"] + place["w"] <= 24, title
    for (a, first), (b, second) in combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart or above, f"{first} overlaps {second}"


@pytest.mark.parametrize("name", BUILT)
def test_every_panel_says_what_it_shows(name: str) -> None:
    for panel in BUILT[name]["panels"]:
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            assert panel["targets"], panel["title"]


@pytest.mark.parametrize("name", BUILT)
def test_queries_ask_for_documented_metrics_and_labels(name: str) -> None:
    known = documented()
    for title, expr in queries(BUILT[name]):
        for metric, matchers in selectors(expr):
            if metric != "ALERTS":
                assert metric in known, f"{title}: {metric} is not in docs/metrics.md"
                _check_labels(title, known[metric], matchers)
                assert {"job", "instance"} <= set(matchers), f"{title}: {metric} ignores the variables"


def _check_labels(title: str, metric: Metric, matchers: dict[str, str]) -> None:
    for label, value in matchers.items():
        if label in ("job", "instance"):
            continue
        assert label in metric.labels, f"{title}: {metric.name} has no label {label}"
        for part in value.split("|"):
            fixed = metric.labels[label]
            assert not fixed or part in fixed, f"{title}: {label} of {metric.name} is never {part}"
