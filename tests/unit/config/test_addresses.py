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
    "url", ["127.0.0.1:8000", "localhost", "ftp://host", "http://", "http://host:port", "http://host:99999"]
)
def test_what_is_no_address_is_refused(section: Any, url: str) -> None:
    with pytest.raises(ConfigError, match="of the form http://host:port"):
        parse_config(section(url))


@pytest.mark.parametrize("section", [_serving, _judge, _reward_model, _sampling])
def test_a_password_in_an_address_is_refused_and_not_repeated(section: Any) -> None:
    with pytest.raises(ConfigError, match="no user or password") as caught:
        parse_config(section("https://ada:hunter2@host:8000"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("section", [_reward_model, _sampling])
def test_none_is_allowed_where_it_means_something(section: Any) -> None:
    parse_config(section(""))


@pytest.mark.parametrize("section", [_serving, _judge])
def test_none_is_refused_where_it_means_nothing(section: Any) -> None:
    with pytest.raises(ConfigError, match="of the form http"):
        parse_config(section(""))
