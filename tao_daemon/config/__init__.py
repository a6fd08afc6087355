"""The typed configuration. Imports nothing heavy; knows every key, its unit and its default.

config.toml → parse → resolve secrets → Config. Unknown keys are errors that name the nearest right one.
"""

from tao_daemon.config.delivery import Control, Freeze, Gateway, PathMap, Rollout, Serving
from tao_daemon.config.events import Events, Webhook
from tao_daemon.config.file import Config, load_config, parse_config
from tao_daemon.config.intake import Buffer, Daemon, Kafka
from tao_daemon.config.rounds import Gate, Round
from tao_daemon.config.sampling import Sampling, Strategy
from tao_daemon.config.scorers import (
    AgreementScorer,
    JsonSchemaScorer,
    JudgeScorer,
    Match,
    MatchScorer,
    MathScorer,
    PythonScorer,
    RegexScorer,
    RewardModelScorer,
    ScorerConfig,
    SqlScorer,
)
from tao_daemon.config.training import Training

__all__ = [
    "AgreementScorer",
    "Buffer",
    "Config",
    "Control",
    "Daemon",
    "Events",
    "Freeze",
    "Gate",
    "Gateway",
    "JsonSchemaScorer",
    "JudgeScorer",
    "Kafka",
    "Match",
    "MatchScorer",
    "MathScorer",
    "PathMap",
    "PythonScorer",
    "RegexScorer",
    "RewardModelScorer",
    "Rollout",
    "Round",
    "Sampling",
    "ScorerConfig",
    "Serving",
    "SqlScorer",
    "Strategy",
    "Training",
    "Webhook",
    "load_config",
    "parse_config",
]
