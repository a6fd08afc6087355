"""Addresses of servers: what they begin with, and what they must not hold."""

from __future__ import annotations

from typing import Any

import pytest

from tao_daemon.config import parse_config
from tao_daemon.domain.errors import ConfigError


def _serving(url: str) -> dict[str, Any]:
    return {"serving": {"replicas": [url]}}


def _judge(url: str) -> dict[str, Any]:
    return {"scorers": [{"name": "judge", "type": "judge", "model": "m", "url": url}]}


def _reward_model(url: str) -> dict[str, Any]:
    return {"scorers": [{"name": "rm", "type": "reward_model", "model": "m", "url": url}]}


def _sampling(url: str) -> dict[str, Any]:
    return {"sampling": {"endpoint": url}}


@pytest.mark.parametrize("section", [_serving, _judge, _reward_model, _sampling])
@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "localhost",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://host:99999",
        "http://[::1",
        "http://[name]:80",
        "http://ho st",
        "http://host\n",
    ],
)
def test_what_is_no_address_is_refused(section: Any, url: str) -> None:
    with pytest.raises(ConfigError, match="of the form http://host:port"):
        parse_config(section(url))


@pytest.mark.parametrize("section", [_serving, _judge, _reward_model, _sampling])
@pytest.mark.parametrize("place", ["ada:hunter2@host:8000", "hunter2@host", ":hunter2@host", "@host"])
def test_a_password_in_an_address_is_refused_and_not_repeated(section: Any, place: str) -> None:
    with pytest.raises(ConfigError, match="no user or password") as caught:
        parse_config(section(f"https://{place}"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("host", ["ho\u2100st", "[::1", "host:port"])
def test_no_part_of_a_broken_address_is_repeated(host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(_serving(f"https://ada:hunter2@{host}"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://host:8000?key=1", "http://host:8000/v1#x"])
def test_a_base_url_holds_nothing_that_a_path_cannot_follow(url: str) -> None:
    with pytest.raises(ConfigError, match="holds no"):
        parse_config(_serving(url))


def test_a_base_url_may_have_a_path_and_an_address_of_version_six() -> None:
    replicas = ("https://proxy/models/one/", "http://[::1]:8000")
    assert parse_config({"serving": {"replicas": list(replicas)}}).serving.replicas == replicas


@pytest.mark.parametrize("section", [_reward_model, _sampling])
def test_none_is_allowed_where_it_means_something(section: Any) -> None:
    parse_config(section(""))


@pytest.mark.parametrize("section", [_serving, _judge])
def test_none_is_refused_where_it_means_nothing(section: Any) -> None:
    with pytest.raises(ConfigError, match="of the form http"):
        parse_config(section(""))
