"""The typed configuration. Imports nothing heavy; knows every key, its unit and its default.

config.toml → parse → resolve secrets → Config. Unknown keys are errors that name the nearest right one.
"""

from tao_daemon.config.delivery import Control, Freeze, Gateway, PathMap, Rollout, Serving
from tao_daemon.config.events import Events, Webhook
from tao_daemon.config.file import Config, load_config, parse_config
from tao_daemon.config.intake import Buffer, Daemon, Kafka
from tao_daemon.config.rounds import Gate, Match, Round, Sampling, ScorerConfig, Strategy, Training

__all__ = [
    "Buffer",
    "Config",
    "Control",
    "Daemon",
    "Events",
    "Freeze",
    "Gate",
    "Gateway",
    "Kafka",
    "Match",
    "PathMap",
    "Rollout",
    "Round",
    "Sampling",
    "ScorerConfig",
    "Serving",
    "Strategy",
    "Training",
    "Webhook",
    "load_config",
    "parse_config",
]
