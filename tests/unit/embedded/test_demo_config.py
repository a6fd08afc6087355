"""The demo's config file is one that the daemon takes, and says what it deviates in."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tao_daemon.config import parse_config
from tao_daemon.domain.rollout import RolloutMode
from tao_daemon.embedded.demo_config import HELD_OUT_PROMPTS, DemoPlaces, config_text
from tao_daemon.embedded.traffic import MAX_TOKENS, hints

PLACES = DemoPlaces(
    work_dir=Path('/srv/a "quoted" dir'),
    model_dir=Path("/srv/model"),
    bootstrap="127.0.0.1:19092",
    vllm="http://127.0.0.1:18000",
    control_port=18090,
    gateway_port=18080,
)


def test_the_daemon_takes_it() -> None:
    config = parse_config(tomllib.loads(config_text(PLACES, seed=7)))
    assert config.daemon.data_dir == PLACES.data_dir
    assert config.kafka.bootstrap_servers == (PLACES.bootstrap,)
    assert config.serving.replicas == (PLACES.vllm,)
    assert config.gateway.daemon_url == PLACES.control == "http://127.0.0.1:18090"
    assert PLACES.gateway.endswith(str(config.gateway.port))
    assert config.training.base_model == PLACES.model_dir
    assert config.scorers[0].schema_file == PLACES.schema_file
    assert config.round.seed == 7


def test_it_promotes_by_itself_and_asks_for_a_smaller_gate_than_recommended() -> None:
    config = parse_config(tomllib.loads(config_text(PLACES, seed=0)))
    assert config.rollout.mode is RolloutMode.AUTO
    assert config.gate.prompts == config.gate.min_prompts == HELD_OUT_PROMPTS < 200


def test_every_hint_is_a_strategy_and_live_questions_find_a_free_slot() -> None:
    config = parse_config(tomllib.loads(config_text(PLACES, seed=0)))
    assert {s.name: s.instruction for s in config.sampling.strategies} == hints()
    assert config.sampling.max_tokens == MAX_TOKENS
    completions = config.sampling.completions + sum(s.completions for s in config.sampling.strategies)
    assert config.sampling.concurrent_prompts * completions < 96
