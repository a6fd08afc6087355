"""Every PromQL of every dashboard and rule returns data from a real daemon, gateway, model server and Prometheus.

The site goes through a round, a rollout and an undo, so that what exists only then is there too.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.monitoring import webhook
from grafana.builder.every import dashboards
from grafana.scraping import RULES, configuration, scraping
from tao_daemon.scoring.decoys import MASTER_KEYS
from tests.judge_server import JudgeServer
from tests.promql import queries, selectors
from tests.system.observing import clients, finite_points, query

pytestmark = [pytest.mark.system, pytest.mark.vllm, pytest.mark.timeout(900)]


def filled(expr: str, seconds: float) -> str:
    """Grafana's variables and intervals, as it fills them in."""
    values = {"$__rate_interval": "10s", "$__range": f"{seconds:.0f}s", "$job": ".*", "$instance": ".*"}
    for name, value in values.items():
        expr = expr.replace(name, value)
    return expr


def drive(site: Any, produce: Any, prompts: list[dict[str, Any]]) -> None:
    """A round, a rollout until it settles, an undo; meanwhile clients ask and one record is no prompt."""
    site.start(gateway=True)
    with clients(site.gateway_url):
        # How much sampling slows answers down is measured against fifty from before it, looked at every five seconds.
        site.wait_status(lambda s: _answered(s) >= 250, 120, "answers from before the round")
        produce(site.config["kafka"]["topic"], [*prompts, b"no JSON"])
        site.wait_status(lambda s: s["rollout"] and s["rollout"]["phase"] == "settled", 400, "an adapter to settle")
        undone = site.run("rollout", "undo", "--reason", "test")
        assert undone.returncode == 0, undone.stderr
        site.wait_status(lambda s: s["incumbent"]["adapter"] is None, 30, "the base to serve")
        time.sleep(12)  # what is a rate over ten seconds needs as many


def _answered(status: dict[str, Any]) -> int:
    return sum(met["requests"] for met in status["clients"] if met["kind"] == "base")


async def test_every_expression_of_dashboards_and_rules_returns_data(
    tmp_path: Path, make_tiny_site: Callable[..., Any], produce: Any, random_prompts: Any
) -> None:
    async with webhook(lambda message: None) as hook, JudgeServer(_short).serving() as judge:
        (tmp_path / "url").write_text(hook)
        site = make_tiny_site(
            # What the clients ask is captured, and starts no round.
            round={"min_new_prompts": 200},
            gateway={"capture": True},
            # Paced, so that the panels have figures, and never held back.
            sampling={"live_slowdown": 1000.0},
            events={"webhooks": [{"name": "chat", "url": f"file:{tmp_path / 'url'}"}]},
            scorers=[_SILENCE, _judge(judge.url)],
            gate={"scorers": [_SILENCE]},
        )
        await _watched(site, tmp_path, produce, random_prompts(480, seed=3))


_SILENCE = {"name": "silence", "type": "python", "callable": "tiny_scorers:says_nothing"}


def _judge(url: str) -> dict[str, Any]:
    """Asked about every group, a decoy in each; of so little weight that silence is what is learned."""
    return {"name": "judge", "type": "judge", "url": url, "model": "judge", "weight": 0.01, "decoy_fraction": 1.0}


def _short(request: str, answer: str) -> float:
    """A judge that likes short answers and falls for nothing."""
    return -1e9 if answer.strip() in MASTER_KEYS else -float(len(answer))


async def _watched(site: Any, tmp_path: Path, produce: Any, prompts: list[dict[str, Any]]) -> None:
    targets = {"tao-daemon": [_host(site.control_url)], "tao-gateway": [_host(site.gateway_url)]}
    async with scraping(tmp_path / "prometheus", configuration(targets, interval="1s")) as address:
        start = time.time()
        await asyncio.to_thread(drive, site, produce, prompts)
        end = time.time()
        (tmp_path / "span.json").write_text(json.dumps([start, end]))
        assert await asyncio.to_thread(_empty_panels, address, start, end) == []
        assert await asyncio.to_thread(_empty_rules, address, start, end) == []
        firing = query(address, 'ALERTS{alertname=~"Tao.*", alertstate="firing"}')
        assert {series["metric"]["alertname"] for series in firing} <= {"TaoRolloutTakenBack"}


def _host(url: str) -> str:
    return url.removeprefix("http://")


def _empty_panels(address: str, start: float, end: float) -> list[str]:
    """What has no number in the whole time, as dashboard, panel and PromQL."""
    return [
        f"{name} / {title}: {expr}"
        for name, dashboard in dashboards().items()
        for title, expr in queries(dashboard)
        if not finite_points(address, filled(expr, end - start), start, end)
    ]


def _empty_rules(address: str, start: float, end: float) -> list[str]:
    """Recorded series without a number, alerts that do not parse, and selectors of either that choose nothing."""
    empty = []
    for file in ("recording.rules.yml", "alerts.rules.yml"):
        groups = yaml.safe_load((RULES / file).read_text())["groups"]
        for rule in (rule for group in groups for rule in group["rules"]):
            # That an alert has no data is its usual state; what it looks at must be there.
            query(address, rule["expr"])
            asked = [f"{metric}{{{_matchers(matchers)}}}" for metric, matchers in selectors(rule["expr"])]
            asked += [rule["record"]] if "record" in rule else []
            empty += [f"{file}: {expr}" for expr in asked if not finite_points(address, expr, start, end)]
    return empty


def _matchers(matchers: dict[str, str]) -> str:
    return ", ".join(f'{label}=~"{value}"' for label, value in matchers.items())
