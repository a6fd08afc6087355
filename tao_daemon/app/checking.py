"""What a configuration names beside its own keys, tried out: scorers and strategies with their files and functions."""

from __future__ import annotations

import aiohttp

from tao_daemon.config import Config
from tao_daemon.domain.errors import ConfigError
from tao_daemon.sampling.asks import Asks
from tao_daemon.scoring.scorer import ConfiguredScorer


async def check_parts(config: Config) -> None:
    """Raises ConfigError for the first that cannot work. Asks no server."""
    check_strategies(config)
    async with aiohttp.ClientSession() as session:
        for scorers in (config.scorers, config.gate.scorers):
            built = ConfiguredScorer(scorers, min_spread=config.training.min_spread, session=session)
            await built.close()


def check_strategies(config: Config) -> None:
    """Raises ConfigError for a strategy whose file or extractor cannot be used."""
    try:
        Asks(config.sampling)
    except (ValueError, OSError) as error:
        raise ConfigError(f"sampling.strategies: {error}") from None
