"""Every example of docs/scorers.md is a config that is accepted as it stands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from tao_daemon.config import ScorerConfig, parse_config

PAGE = (Path(__file__).parents[3] / "docs" / "scorers.md").read_text()
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_an_example_is_accepted(block: str) -> None:
    assert parse_config(tomllib.loads(block)).scorers


def test_every_type_of_scorer_and_strategy_is_told() -> None:
    kinds = [get_args(kind.model_fields["type"].annotation)[0] for kind in get_args(get_args(ScorerConfig)[0])]
    assert {"judge", "agreement", "sql"} <= set(kinds)
    assert [kind for kind in kinds if f"`{kind}`" not in PAGE] == []
    for strategy in ("instruction", "chain_of_thought", "few_shot", "structured", "template"):
        assert f"`{strategy}`" in PAGE
