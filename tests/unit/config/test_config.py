"""The configuration: defaults that work, errors that name the key and the remedy."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tao_daemon.config import Config, load_config, parse_config
from tao_daemon.config.reference import reference
from tao_daemon.config.values import UNREAD
from tao_daemon.domain.errors import ConfigError
from tao_daemon.domain.prompt import Prompt, Source

REFERENCE = Path(__file__).parents[3] / "config.toml"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"kafkaa": {}}, "unknown key 'kafkaa'; did you mean 'kafka'"),
        ({"kafka": {"topik": "x"}}, "unknown key 'kafka.topik'; did you mean 'topic'"),
        ({"scorers": [{"name": "a", "type": "regex", "patern": "x"}]}, "did you mean 'pattern'"),
        ({"scorers": [{"name": "a", "type": "regex"}]}, "needs pattern"),
        ({"round": {"prompts": 3}}, r"training.min_groups \(4\) exceeds round.prompts \(3\)"),
        ({"sampling": {"live_slowdown": 0.5}}, "live_slowdown is below 1"),
        ({"training": {"memory_headroom": 1.0}}, "training.memory_headroom: Input should be less than 1"),
        (
            {"scorers": [{"name": "a", "type": "agreement", "answer": "whole", "low": 0.9, "high": 0.3}]},
            r"scorers.0: low \(0.9\) exceeds high",
        ),
        (
            {"scorers": [{"name": "a", "type": "regex", "pattern": "x", "match": {"system_sha256": "9f86d081884c"}}]},
            r"scorers.0.match.system_sha256: String should match",
        ),
        (
            {"sampling": {"strategies": [{"name": "x", "instruction": "i", "match_system_sha256": "F" * 64}]}},
            r"sampling.strategies.0.match_system_sha256: String should match",
        ),
        ({"kafka": {"sasl_password": "hunter2"}}, "env:NAME or file:PATH"),
        ({"serving": {"in_place_alias": "live"}}, "nobody splits or counts traffic"),
        ({"kafka": {"sasl_password": "env:TAO_NO_SUCH_VARIABLE"}}, "TAO_NO_SUCH_VARIABLE is not set"),
        ({"gate": {"prompts": 10}}, r"gate.min_prompts \(200\) exceeds gate.prompts \(10\)"),
        ({"training": {"rank": 32}}, "raise --max-lora-rank"),
        ({"buffer": {"held_out_fraction": 1.0}}, "buffer.held_out_fraction"),
        ({"round": {"prompts": "many"}}, "round.prompts"),
        (
            {"gateway": {"processes": 3, "metrics_port": 8078}},
            r"8078 to 8080; they must not include port \(8080\)",
        ),
        ({"gateway": {"processes": 3, "metrics_port": 65_534}}, "end at 65535"),
        ({"sampling": {"strategies": [{"name": "x", "instruction": "i"}] * 2}}, "x is used twice"),
        ({"scorers": [{"name": "none", "type": "regex", "pattern": "a"}]}, "give the scorer another name"),
    ],
)
def test_errors_name_the_key_and_the_remedy(data: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_config(data)


def test_the_digest_of_a_prompts_system_messages_can_be_matched() -> None:
    messages = [{"role": "system", "content": "test"}, {"role": "user", "content": "q"}]
    digest = Prompt("p", {"messages": messages}, Source("t", 0, 0), received_at=0.0).system_digest
    assert digest == "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    for each in (digest, ""):
        match = {"system_sha256": each}
        config = parse_config({"scorers": [{"name": "a", "type": "regex", "pattern": "x", "match": match}]})
        assert config.scorers[0].match.system_sha256 == each


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"kafkaa": {}, "round": {"prompts": 0}})
    assert len(str(caught.value).splitlines()) == 2


def test_a_secret_is_read_by_reference_and_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TAO_TEST_PASSWORD", "hunter2")
    key = tmp_path / "key"
    key.write_text("s3cret\n")
    config = parse_config({"kafka": {"sasl_password": "env:TAO_TEST_PASSWORD"}, "serving": {"api_key": f"file:{key}"}})
    assert config.kafka.sasl_password is not None
    assert config.kafka.sasl_password.get_secret_value() == "hunter2"
    assert config.serving.api_key is not None
    assert config.serving.api_key.get_secret_value() == "s3cret"
    shown = repr(config) + config.model_dump_json()
    assert "hunter2" not in shown
    assert "s3cret" not in shown


@pytest.mark.parametrize("content", [b"", b" \n", b"hunter\xff2"])
def test_a_file_that_holds_no_secret_is_told_by_name(tmp_path: Path, content: bytes) -> None:
    key = tmp_path / "key"
    key.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"serving\.api_key: the secret file {key} is (empty|not UTF-8)") as caught:
        parse_config({"serving": {"api_key": f"file:{key}"}})
    assert "hunter" not in str(caught.value)


def test_white_space_around_a_secret_does_not_count_wherever_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAO_TEST_PASSWORD", " hunter2\n")
    password = parse_config({"kafka": {"sasl_password": "env:TAO_TEST_PASSWORD"}}).kafka.sasl_password
    assert password is not None
    assert password.get_secret_value() == "hunter2"
    monkeypatch.setenv("TAO_TEST_PASSWORD", "")
    with pytest.raises(ConfigError, match="the environment variable TAO_TEST_PASSWORD is empty"):
        parse_config({"kafka": {"sasl_password": "env:TAO_TEST_PASSWORD"}})


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"scorers": [{"name": "j", "type": "judge", "url": "http://h", "model": "m"}]}, "scorers.0.api_key"),
        ({"scorers": [{"name": "r", "type": "reward_model", "url": "http://h", "model": "m"}]}, "scorers.0.api_key"),
        ({"serving": {}}, "serving.api_key"),
        ({"gateway": {}}, "gateway.daemon_token"),
    ],
)
@pytest.mark.parametrize("secret", ["hunter2\nX-Other: 1", "hunter2\u2713"])
def test_a_key_that_no_header_can_hold_stops_the_start(
    data: dict[str, Any], key: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAD_KEY", secret)
    ((section, value),) = data.items()
    bad = {key.rpartition(".")[2]: "env:BAD_KEY"}
    found = {section: [{**value[0], **bad}] if isinstance(value, list) else {**value, **bad}}
    with pytest.raises(ConfigError, match=f"{key}: it holds characters that no header can") as caught:
        parse_config(found)
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_and_bad_toml_are_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load_config(tmp_path / "nowhere.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("[kafka\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(bad)


def test_the_digest_follows_values_but_not_their_order() -> None:
    one = parse_config({"round": {"prompts": 5, "seed": 1}})
    two = parse_config({"round": {"seed": 1, "prompts": 5}})
    assert one.digest == two.digest
    assert one.digest != parse_config({}).digest


def test_the_reference_file_holds_every_key_with_its_default() -> None:
    """config.toml at the top level. `python -m tao_daemon.config.reference > config.toml` writes it."""
    assert REFERENCE.read_text() == reference()
    assert load_config(REFERENCE) == Config()
    data = tomllib.loads(REFERENCE.read_text())
    assert set(data) == set(Config.model_fields) - {"scorers"}


SECRETS = {
    "kafka": {"sasl_password": "env:TAO_NO_SUCH_VARIABLE"},
    "serving": {"api_key": "env:TAO_SET"},
    "events": {"webhooks": [{"name": "chat", "url": "file:/no/such/file"}]},
}


def test_the_secrets_of_other_sections_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAO_SET", "key")
    config = parse_config(SECRETS, secrets_of=("serving",))
    assert config.serving.api_key is not None
    assert config.serving.api_key.get_secret_value() == "key"
    assert config.kafka.sasl_password == config.events.webhooks[0].url == UNREAD
    assert config.digest == parse_config(SECRETS, secrets_of=()).digest
    with pytest.raises(ConfigError, match="/no/such/file") as caught:
        parse_config(SECRETS)
    assert "TAO_NO_SUCH_VARIABLE is not set" in str(caught.value)


def test_a_secret_that_is_not_read_is_still_none_that_is_written_down() -> None:
    with pytest.raises(ConfigError, match="never written into the file"):
        parse_config({"kafka": {"sasl_password": "hunter2"}}, secrets_of=())
