"""Alerts, the runbook and the metrics agree: names, links, severities, commands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tao_daemon.cli.main import cli
from tests.promql import documented, selectors

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
BASE = "https://github.com/tao-daemon/tao-daemon/blob/main/docs/runbook.md#"


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("alerts.rules.yml")}
RECORDED = {rule["record"]: rule for rule in rules("recording.rules.yml")}


def sections() -> dict[str, str]:
    """The text below each heading of the runbook's block "Alerts"."""
    block = re.search(r"^## Alerts\n(.*?)(?=^## |\Z)", RUNBOOK, re.DOTALL | re.MULTILINE)
    assert block is not None
    parts = re.split(r"^### (\w+)\n", block[1], flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_there_are_few_alerts_and_each_has_one_section_of_the_runbook() -> None:
    assert len(ALERTS) <= 20
    assert list(sections()) == list(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_how_bad_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    severity = alert["labels"]["severity"]
    assert severity in ("page", "ticket")
    assert "$value" in alert["annotations"]["description"] or "| value" in alert["annotations"]["description"]
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["runbook_url"] == f"{BASE}{name.lower()}"
    section = sections()[name]
    assert section.strip().startswith(f"*{severity}.*")
    for part in ("**Look at**", "**Do**", "**Over when**"):
        assert part in section, f"{name}: the runbook lacks {part}"


@pytest.mark.parametrize("name", [*ALERTS, *RECORDED])
def test_rules_ask_for_documented_metrics_labels_and_recorded_series(name: str) -> None:
    known = documented()
    expr = (ALERTS | RECORDED)[name]["expr"]
    for metric, matchers in selectors(expr):
        assert metric in known, f"{metric} is not in docs/metrics.md"
        for label, value in matchers.items():
            if label == "job":
                continue
            fixed = known[metric].labels[label]
            assert not fixed or set(value.split("|")) <= fixed, f"{label} of {metric} is never {value}"
    for recorded in re.findall(r"\w+:\w+:\w+", expr):
        assert recorded in RECORDED


def test_no_alert_of_one_model_silences_another_models() -> None:
    """Jobs tell models apart: a rule has the same one on both sides, or names one on each."""
    inhibiting = yaml.safe_load((ROOT / "deploy" / "alertmanager" / "alertmanager.yml").read_text())["inhibit_rules"]
    assert inhibiting
    for rule in inhibiting:
        sides = [" ".join(rule[f"{side}_matchers"]) for side in ("source", "target")]
        named = all(re.search(r'\bjob="[^"]+"', side) for side in sides)
        assert named or {"job", "instance"} <= set(rule.get("equal", ())), rule


def test_a_model_server_that_is_down_silences_nothing_of_another_server() -> None:
    inhibiting = yaml.safe_load((ROOT / "deploy" / "alertmanager" / "alertmanager.yml").read_text())["inhibit_rules"]
    unready = [rule for rule in inhibiting if any("TaoReplicaUnready" in each for each in rule["target_matchers"])]
    assert [rule["equal"] for rule in unready] == [["job", "instance", "replica"]]


def test_every_alert_has_tests_that_it_fires_and_that_it_stays_silent() -> None:
    tests = yaml.safe_load((FOLDER / "alerts.test.yml").read_text())["tests"]
    tried = [
        (asked["alertname"], bool(asked["exp_alerts"])) for test in tests for asked in test.get("alert_rule_test", [])
    ]
    for name in ALERTS:
        assert (name, True) in tried, f"no test fires {name}"
        assert (name, False) in tried, f"no test keeps {name} silent"


def test_the_commands_of_the_runbook_exist() -> None:
    asked = set(re.findall(r"`tao-daemon ([a-z-]+)(?: ([a-z]+))?", " ".join(RUNBOOK.split())))
    assert len(asked) > 8
    context = click.Context(cli)
    for first, second in asked:
        command = cli.get_command(context, first)
        assert command is not None, f"tao-daemon {first}"
        if isinstance(command, click.Group):
            assert not second or second in command.commands, f"tao-daemon {first} {second}"


def test_panels_that_the_runbook_names_exist() -> None:
    folder = ROOT / "grafana" / "dashboards"
    titles = {panel["title"] for path in folder.glob("*.json") for panel in json.loads(path.read_text())["panels"]}
    for name, section in sections().items():
        for title in re.findall(r'"([A-Z0-9][^"]{3,})"', " ".join(section.split("**Do**")[0].split())):
            assert title.rstrip(".,:") in titles, f"{name}: no panel is called {title}"
