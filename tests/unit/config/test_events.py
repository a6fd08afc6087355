"""[events]: what can be told apart, and what would never be delivered."""

from __future__ import annotations

from typing import Any

import pytest

from tao_daemon.config import parse_config
from tao_daemon.domain.errors import ConfigError

BROKEN = {
    "NO_HOOK": "hooks.very-secret.test",
    "NO_PORT": "https://hooks.slack.test:very-secret/services",
    "NO_HOST": "https://[very-secret]/services",
    "NO_SPACES": "https://hooks.slack.test/services very-secret",
    "WITH_PASSWORD": "https://ada:very-secret@hooks.slack.test/services",
    "BROKEN_WITH_PASSWORD": "https://ada:very-secret@ho\u2100st/services",
}


@pytest.fixture(autouse=True)
def _addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "https://hooks.slack.test/services/T0/B0/very-secret")
    for name, address in BROKEN.items():
        monkeypatch.setenv(name, address)


def hook(**more: Any) -> dict[str, Any]:
    return {"events": {"webhooks": [{"name": "on-call", "url": "env:HOOK", **more}]}}


def test_an_address_is_a_secret() -> None:
    config = parse_config(hook(types=["rollout.*", "undo.*"]))
    (webhook,) = config.events.webhooks
    assert webhook.url.get_secret_value().endswith("very-secret")
    assert "very-secret" not in repr(config) + config.model_dump_json()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (hook(types=["rolout.*"]), "'rolout.*' matches no event type; there are daemon.started"),
        (hook(types=[]), "types"),
        (hook(url="https://hooks.slack.test/plain"), "env:NAME or file:PATH"),
        (hook(url="env:NO_HOOK"), "of the form http"),
        (hook(url="env:NO_PORT"), "of the form http"),
        (hook(url="env:NO_HOST"), "of the form http"),
        (hook(url="env:NO_SPACES"), "of the form http"),
        (hook(url="env:WITH_PASSWORD"), r"webhooks\.0\.url: an address holds no user or password"),
        (hook(url="env:BROKEN_WITH_PASSWORD"), "of the form http"),
        (hook(secret="env:HOOK"), "Slack checks no signature"),
        (hook(name="kafka"), "'kafka' is used twice"),
        (hook(name="../x"), r"webhooks\.0\.name"),
        (hook(format="teams"), "slack"),
        (hook(typs=["*"]), "did you mean 'types'"),
        ({"events": {"topic": "no topic"}}, "events.topic"),
        ({"events": {"source": ""}}, "events.source"),
    ],
)
def test_mistakes_are_told(data: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        parse_config(data)
    assert "very-secret" not in str(caught.value)
