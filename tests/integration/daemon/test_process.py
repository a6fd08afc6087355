"""The daemon as its users run it: a process with a real broker, without a model server."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

NEEDLE = "needle-7f3a1c-secret-prompt"
VERBS = ("approve", "promote", "abort", "pause", "resume", "undo")
CHANGES = ("/v1/rounds", "/v1/rounds/cancel", *(f"/v1/rollout/{verb}" for verb in VERBS))


def prompts(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Distinct requests that are no near-duplicates of one another."""
    words = ["river", "engine", "violin", "harbour", "pepper", "lantern", "meadow", "copper", "saddle", "marble"]
    texts = []
    for number in range(start, start + count):
        picked = [words[(number // 10**place + place * number) % 10] for place in range(3)]
        texts.append(f"{' '.join(picked)} {''.join(chr(97 + (number * 7 + i * i) % 26) for i in range(24))}")
    return [{"messages": [{"role": "user", "content": text}]} for text in texts]


def total(status: dict[str, Any]) -> int:
    buffer = status["buffer"] or {"train": 0, "held_out": 0, "excluded": 0}
    return int(buffer["train"] + buffer["held_out"] + buffer["excluded"])


def test_records_become_prompts_and_bad_ones_dead_letters(make_site: Callable[..., Any], produce: Any) -> None:
    site = make_site()
    topic = site.config["kafka"]["topic"]
    produce(topic, [*prompts(40), b"\xff not json", {"messages": []}])
    site.start()
    status = site.wait_status(lambda s: total(s) == 40, 30, "40 prompts in the buffer")
    assert status["intake"] == "consuming"
    produce(topic, prompts(10, start=40))
    site.wait_status(lambda s: total(s) == 50, 30, "50 prompts in the buffer")

    def total_of(name: str, **labels: str) -> float:
        with urllib.request.urlopen(f"{site.control_url}/metrics", timeout=5) as response:
            families = list(text_string_to_metric_families(response.read().decode()))
        samples = [each for family in families for each in family.samples if each.name == name]
        return sum(each.value for each in samples if labels.items() <= each.labels.items())

    site.wait(lambda: total_of("tao_process_event_loop_lag_seconds_count"), 10, "a look at the event loop")
    assert total_of("tao_intake_rejected_total") == 2
    assert total_of("tao_intake_prompts_total") == total_of("tao_buffer_prompts") == 50
    assert total_of("tao_intake_state", state="consuming") == 1
    assert total_of("tao_buffer_write_seconds_count") >= 1
    assert 0 < total_of("tao_buffer_min_free_disk_bytes") < total_of("tao_buffer_free_disk_bytes")
    assert total_of("tao_buffer_file_bytes") > 0
    assert total_of("tao_journal_entries_total") >= 1
    assert total_of("tao_control_requests_total", route="/v1/status", status="2xx") >= 1
    assert total_of("tao_serving_replica_reachable") == 0, "no model server runs"
    assert total_of("tao_sampling_limit_requests") > 0
    assert total_of("process_resident_memory_bytes") > 1e7


def test_kill_nine_loses_and_doubles_nothing(make_site: Callable[..., Any], produce: Any) -> None:
    site = make_site()
    topic = site.config["kafka"]["topic"]
    for start in (0, 60, 120):
        produce(topic, prompts(60, start=start))
        site.start()
        site.wait_status(lambda s: total(s) > 0, 30, "the first batch")
        site.daemon.kill()
    site.start()
    site.wait_status(lambda s: total(s) == 180, 30, "all prompts")
    assert site.run("audit", "verify").returncode == 0


def test_a_second_instance_refuses_to_start(make_site: Callable[..., Any]) -> None:
    site = make_site(kafka={"enabled": False})
    site.start()
    second = site.run("run")
    assert second.returncode == 1
    assert "in use by process" in second.stderr


@pytest.mark.parametrize("delay", [0.0, 0.3, 1.0, 2.0])
def test_sigterm_ends_cleanly_whenever_it_comes(make_site: Callable[..., Any], delay: float) -> None:
    site = make_site()
    site.write_config()
    site.daemon.start()
    pid = site.daemon.pid
    time.sleep(delay)
    os.kill(pid, signal.SIGTERM)
    status = site.daemon.popen.wait(25)
    # While Python still imports, SIGTERM ends the process the default way; then it has touched nothing yet.
    untouched = not Path(site.config["daemon"]["data_dir"]).exists()
    assert status == 0 or (status == 128 + signal.SIGTERM and untouched), site.daemon.tail()


def test_no_token_no_change(make_site: Callable[..., Any]) -> None:
    site = make_site(kafka={"enabled": False})
    site.start()
    for path in CHANGES:
        assert site.ask("POST", path, {}).status == 401
        assert site.ask("POST", path, {}, "wrong").status == 401
    token = Path(site.config["daemon"]["data_dir"], "control.token")
    assert token.stat().st_mode & 0o077 == 0
    for verb in VERBS:
        assert site.ask("POST", f"/v1/rollout/{verb}", {}, site.token).status == 409, "nothing to act on"
    assert site.ask("POST", "/v1/rounds", b"{not json", site.token).status == 422
    assert site.ask("POST", "/v1/rounds", [], site.token).status == 422


def test_only_who_has_the_token_reports_as_a_gateway(make_site: Callable[..., Any]) -> None:
    site = make_site(kafka={"enabled": False})
    site.start()

    def tell(method: str, body: Any, token: str | None) -> int:
        return int(site.ask(method, "/v1/gateways/g1", body, token).status)

    report = {"generation": 0}
    assert tell("PUT", report, None) == tell("DELETE", b"", "wrong") == 401
    assert tell("PUT", {}, site.token) == tell("PUT", b"nonsense", site.token) == 422
    assert site.status()["fleet"]["gateways"] == 0
    assert tell("PUT", report, site.token) == 204
    assert site.status()["fleet"]["gateways"] == 1
    assert tell("DELETE", b"", site.token) == 204
    assert site.status()["fleet"]["gateways"] == 0


def test_the_command_line_says_what_it_cannot_do(make_site: Callable[..., Any]) -> None:
    site = make_site(kafka={"enabled": False})
    site.write_config()
    down = site.run("status")
    assert down.returncode == 3
    assert "is it running" in down.stderr
    site.start()
    assert json.loads(site.run("status", "--json").stdout)["incumbent"]["adapter"] is None
    assert "base model" in site.run("status").stdout
    nothing = site.run("rollout", "undo", "--reason", "test")
    assert nothing.returncode == 4
    assert "nothing to undo" in nothing.stdout
    for verb in ("approve", "promote", "abort", "pause", "resume"):
        refused = site.run("rollout", verb, "--reason", "test")
        assert refused.returncode == 4, refused.stderr
        assert "nothing to" in refused.stdout
    assert "none yet" in site.run("rollout", "status").stdout
    assert json.loads(site.run("rollout", "history", "--json").stdout) == []
    assert site.run("check-config", "nowhere.toml").returncode == 2


def test_a_file_can_be_imported_twice_without_harm(make_site: Callable[..., Any]) -> None:
    site = make_site(kafka={"enabled": False})
    site.write_config()
    file = site.root / "prompts.jsonl"
    file.write_text("\n".join([*map(json.dumps, prompts(30)), "not json"]))
    first = json.loads(site.run("buffer", "import", "--json", str(file)).stdout)
    assert first["train"] + first["held_out"] + first["excluded"] == 30
    assert [line["line"] for line in first["rejected"]] == [31]
    second = json.loads(site.run("buffer", "import", "--json", str(file)).stdout)
    assert second["duplicates"] == 30
    stats = json.loads(site.run("buffer", "stats", "--json").stdout)["stats"]
    assert stats["train"] + stats["held_out"] + stats["excluded"] == 30


def test_no_prompt_text_reaches_logs_metrics_or_status(make_site: Callable[..., Any], produce: Any) -> None:
    site = make_site(daemon={"log_level": "debug"})
    topic = site.config["kafka"]["topic"]
    good = {"messages": [{"role": "user", "content": f"{NEEDLE} please"}]}
    bad = [NEEDLE.encode(), {"messages": [{"role": NEEDLE, "content": NEEDLE}]}, {"prompt": NEEDLE, NEEDLE: float(1)}]
    produce(topic, [good, *bad], headers=[("tenant", b"\xff")])
    produce(topic, [good, *bad])
    site.start()
    site.wait_status(lambda s: total(s) >= 1, 30, "a prompt")
    for path in ("/v1/status", "/metrics", "/v1/rounds", "/v1/adapters"):
        request = urllib.request.Request(site.control_url + path, headers={"Authorization": f"Bearer {site.token}"})
        with urllib.request.urlopen(request, timeout=5) as response:
            assert NEEDLE not in response.read().decode()
    site.daemon.stop()
    assert NEEDLE not in site.daemon.log.read_text()
