"""The command line against a real daemon: what is read, what is changed, and what is not allowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tao_daemon.domain.traffic import DURATION_EDGES
from tests.integration.cli.past import FIRST, SECOND, run

Make = Callable[..., Any]


def told(result: Any, code: int = 0) -> str:
    assert result.returncode == code, result.stdout + result.stderr
    return str(result.stdout)


def test_one_look_says_what_needs_a_person(past_site: Make) -> None:
    site = past_site()
    site.start()
    text = told(site.run("status"))
    assert f"the rollout of {SECOND} waits for approval" in text
    assert "tao-daemon rollout approve" in text
    assert f"serving       {FIRST}" in text
    assert "\x1b" not in text
    status = json.loads(told(site.run("status", "--json")))
    assert status["incumbent"]["adapter"] == FIRST
    assert status["rollout"]["hold_reason"] == "approval"
    assert status["needs"][0]["code"] == "approval"
    (server,) = status["fleet"]["replicas"]
    assert (server["url"], server["ready"]) == ("http://127.0.0.1:9", False)
    assert status["fleet"]["behind"] == []
    steps = told(site.run("rollout", "status"))
    assert "[=] shadow" in steps
    assert "[ ] canary 5%" in steps
    told(site.run("rollout", "approve", "--reason", "seen"))
    assert "canary" in told(site.run("wait", "--for", "canary", "--timeout", "20s"))
    assert "[>] canary 5%" in told(site.run("rollout", "status"))
    history = told(site.run("rollout", "history"))
    assert history.index(SECOND) < history.index(FIRST)


def test_rounds_read_the_same_with_the_daemon_up_and_down(past_site: Make) -> None:
    site = past_site()
    commands = [
        ("round", "list"),
        ("round", "list", "--json", "--limit", "2"),
        ("round", "show", "3"),
        ("round", "show", "3", "--json"),
        ("round", "compare", "1", "3"),
        ("rollout", "history", "--json"),
    ]
    down = [told(site.run(*command)) for command in commands]
    assert [report["round"] for report in json.loads(down[1])] == [2, 3]
    assert told(site.run("round", "show", "9"), 1) == ""
    site.start()
    assert [told(site.run(*command)) for command in commands] == down


def test_the_text_of_answers_is_shown_on_request_only(past_site: Make) -> None:
    site = past_site()
    site.start()
    assert "answer" not in told(site.run("round", "show", "3"))
    text = told(site.run("round", "show", "3", "--answers", "2", "--order", "gains"))
    assert "new answer 1 \\x1b[31mred" in text
    assert "2 wins, 1 ties, 0 losses" in text
    assert "\x1b" not in text
    missing = site.run("round", "show", "77")
    assert missing.returncode == 1
    assert "no round 77" in missing.stderr


def test_a_replay_that_differs_is_exit_code_one(past_site: Make) -> None:
    site = past_site()
    text = told(site.run("round", "replay", "3"), 1)
    assert "does NOT come out the same" in text
    assert "[x]    scoring.kept" in text


def test_tokens_up_and_down(past_site: Make) -> None:
    site = past_site()
    made = site.run("token", "create", "before", "--scope", "read", "--days", "1")
    assert made.stdout.count("\n") == 1, "the secret alone is on stdout"
    reader = made.stdout.strip()
    assert reader not in made.stderr
    site.start()
    operator = told(site.run("token", "create", "ops", "--scope", "operate")).strip()
    tokens = {token["name"]: token for token in json.loads(told(site.run("token", "list", "--json")))}
    assert set(tokens) == {"before", "ops"}
    assert reader not in told(site.run("token", "list")) + told(site.run("audit", "show"))

    away = ("--url", site.control_url, "--token", "env:SECRET")
    for secret, arguments, code, words in (
        (reader, ("status",), 0, FIRST),
        (reader, ("rollout", "pause"), 6, "operate"),
        (operator, ("rollout", "pause", "--reason", "by ops"), 0, "paused by ops"),
        (operator, ("rollout", "approve"), 6, "approve"),
        (operator, ("token", "list"), 6, "admin"),
        ("wrong", ("status",), 6, "valid token"),
    ):
        found = run(site, *arguments, *away, SECRET=secret, TAO_CONFIG="/nowhere.toml")
        assert found.returncode == code, (arguments, found.stdout, found.stderr)
        assert words in found.stdout + found.stderr
    none = run(site, "status", "--url", site.control_url, TAO_CONFIG="/nowhere.toml")
    assert none.returncode == 6
    assert "--token env:NAME" in none.stderr

    told(site.run("token", "revoke", tokens["ops"]["id"], "--reason", "left"))
    revoked = run(site, "status", *away, SECRET=operator)
    assert revoked.returncode == 6
    site.daemon.stop()
    told(site.run("token", "revoke", tokens["before"]["id"]))
    assert "valid" not in told(site.run("token", "list"))
    assert site.run("token", "revoke", "nothing").returncode == 1
    assert "token ops revoked: left" in told(site.run("audit", "show"))
    told(site.run("audit", "verify"))


def test_undo_with_the_daemon_down_is_what_the_daemon_goes_on_with(past_site: Make) -> None:
    site = past_site()
    down = json.loads(told(site.run("rollout", "undo", "--to", "base", "--reason", "night", "--json")))
    assert down["refused"] is False
    assert "the base model serves" in down["note"]
    assert told(site.run("rollout", "undo", "--reason", "again"), 4).startswith("the base model serves already")
    site.start()
    assert site.status()["incumbent"]["adapter"] is None
    assert site.run("rollout", "abort").returncode == 4
    assert json.loads(told(site.run("rollout", "abort", "--json"), 4))["refused"] is True


def test_a_promotion_fixes_what_is_slow_before_the_candidate_has_traffic(past_site: Make) -> None:
    site = past_site()
    site.start()
    generation, token = site.status()["incumbent"]["generation"], site.issue("g", "gateway")
    for answers in (0, 100):  # what a gateway counted before the daemon knew it says nothing of the last minutes
        durations = [answers if place == 10 else 0 for place in range(len(DURATION_EDGES) + 1)]
        report = {"generation": generation, "durations": durations}
        assert site.ask("PUT", "/v1/gateways/g1", report, token).status == 204
    told(site.run("rollout", "promote", "--reason", "enough"))
    routes = site.get("/v1/routes")
    assert routes["candidate"] == SECOND
    assert routes["slow_seconds"] == DURATION_EDGES[10]


def test_two_who_promote_at_once_promote_one_step(past_site: Make) -> None:
    site = past_site()
    site.start()
    told(site.run("rollout", "promote", "--reason", "enough"))
    status = site.status()
    assert status["rollout"]["phase"] == "canary"
    told(site.run("rollout", "promote", "--full", "--reason", "no terminal, so nothing is asked"))
    assert site.status()["incumbent"]["adapter"] == SECOND
    assert f"{SECOND} is settled" in told(site.run("wait", "--for", "settled", "--timeout", "5s"))


def test_waiting(past_site: Make) -> None:
    site = past_site()
    never = site.run("wait", "--for", "ready", "--timeout", "1s")
    assert never.returncode == 5
    assert "does not answer" in never.stderr
    site.start()
    assert "ready" in told(site.run("wait", "--for", "ready", "--timeout", "10s"))
    late = site.run("wait", "--for", "settled", "--timeout", "1s")
    assert late.returncode == 5
    assert "waits for" in late.stderr
    assert "accepted" in told(site.run("wait", "--for", "accepted", "--round", "1", "--timeout", "5s"))
    rejected = site.run("wait", "--for", "accepted", "--round", "2", "--timeout", "5s")
    assert rejected.returncode == 1
    assert "round 2 ended rejected: gain 2" in rejected.stderr
    past = json.loads(told(site.run("wait", "--for", "settled", "--rollout", FIRST, "--timeout", "5s", "--json")))
    assert past["reached"] is True


def test_nothing_but_a_claim_starts_a_round(past_site: Make) -> None:
    """A round without prompts fails at once: `--wait` says so."""
    site = past_site(rollout={"newer_candidate": "supersede"})
    site.start()
    failed = site.run("round", "run", "--wait", "--timeout", "40s", "--reason", "try")
    assert failed.returncode == 1
    assert "round 4 starts" in failed.stderr
    assert "round 4 ended failed" in failed.stdout
    assert "round 4 failed" in told(site.run("status"))
    assert site.run("round", "cancel").returncode == 4


def test_adapters_and_the_console(past_site: Make) -> None:
    site = past_site()
    site.start()
    assert told(site.run("adapters", "--json")) == told(site.run("adapters", "list", "--json"))
    assert site.run("adapters", "show", "nothing").returncode == 1
    found = site.run("console")
    assert found.stdout == f"{site.control_url}/console/#token={site.token}\n"
    assert "administrator's token" in found.stderr


def test_who_cannot_read_the_token_is_told(past_site: Make) -> None:
    site = past_site()
    site.start()
    Path(site.config["daemon"]["data_dir"], "control.token").rename(site.root / "elsewhere")
    found = site.run("status")
    assert found.returncode == 6
    assert "control.token" in found.stderr
    assert told(site.run("status", "--token", f"file:{site.root / 'elsewhere'}"))


@pytest.mark.parametrize("command", [("status",), ("rollout", "pause"), ("events",), ("adapters",)])
def test_a_daemon_that_is_not_there_is_three(past_site: Make, command: tuple[str, ...]) -> None:
    found = past_site().run(*command)
    assert found.returncode == 3
    assert "is it running" in found.stderr
