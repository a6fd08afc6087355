"""From an entry of `[[scorers]]` to the grader it describes, and what the entries say of each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_never
from urllib.parse import urlsplit

import aiohttp

from tao_daemon.clients.scoring_server import ScoringServer
from tao_daemon.config import JudgeScorer, RewardModelScorer, ScorerConfig
from tao_daemon.domain.signals import Emit
from tao_daemon.scoring.extraction import extractor
from tao_daemon.scoring.graders import AgreementGrader, EachText, by_request, by_text, one_by_one
from tao_daemon.scoring.json_verifier import JsonVerifier
from tao_daemon.scoring.judge import Judge, JudgeSettings
from tao_daemon.scoring.match_verifier import MatchVerifier
from tao_daemon.scoring.math_verifier import MathVerifier
from tao_daemon.scoring.python_verifier import PythonVerifier, import_function
from tao_daemon.scoring.regex_verifier import RegexVerifier
from tao_daemon.scoring.reward_model import LocalReward, RewardModel, RewardServer, Sigmoid, check_classifier
from tao_daemon.scoring.reward_process import RewardProcess
from tao_daemon.scoring.sql_verifier import SqlVerifier
from tao_daemon.scoring.verifier import Grader


def build_grader(config: ScorerConfig, session: aiohttp.ClientSession | None, emit: Emit) -> Grader:
    """The grader of an entry. Raises ValueError for one that cannot work. Asks no server yet."""
    seconds = config.timeout_seconds
    match config.type:
        case "json_schema":
            return by_text(JsonVerifier(_read_json(config.schema_file), timeout_seconds=seconds))
        case "regex":
            return by_text(RegexVerifier(config.pattern, timeout_seconds=seconds))
        case "python":
            return EachText(PythonVerifier(import_function(config.callable), timeout_seconds=seconds).check)
        case "match":
            match = MatchVerifier(config.expected, config.answer, mode=config.mode, timeout_seconds=seconds)
            return by_request(match)
        case "math":
            tolerance = config.tolerance
            math = MathVerifier(config.expected, config.answer, tolerance=tolerance, timeout_seconds=seconds)
            return by_request(math)
        case "sql":
            sql = SqlVerifier(config.fixture, config.answer, timeout_seconds=seconds)
            return one_by_one(sql, sql.close)
        case "judge":
            return _judge(config, session, emit)
        case "reward_model":
            return _reward_model(config, session, emit)
        case "agreement":
            extract = extractor(config.answer, timeout_seconds=seconds).from_answer
            return AgreementGrader(extract, low=config.low, high=config.high)
        case _:
            assert_never(config.type)


def trains_and_judges(training: Sequence[ScorerConfig], gate: Sequence[ScorerConfig]) -> list[str]:
    """Names of the judges and reward models of training that also score the gate; an empty gate has those of training.

    What was trained to please one of them is not measured by it. The same model under another name is the same.
    Verifiers can only be pleased by what they verify, and agreement never scores a gate.
    """
    used = {_head(scorer) for scorer in gate or training}
    return [scorer.name for scorer in training if (head := _head(scorer)) is not None and head in used]


def _head(scorer: ScorerConfig) -> tuple[str, str] | None:
    """Equal for scorers that think with the same model, however its address is written; None for those that do not
    think."""
    if not isinstance(scorer, JudgeScorer | RewardModelScorer):
        return None
    if not scorer.url:
        return "", str(Path(scorer.model).resolve())
    parts = urlsplit(scorer.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.hostname}:{port}{parts.path.rstrip('/')}", scorer.model


def _judge(config: JudgeScorer, session: aiohttp.ClientSession | None, emit: Emit) -> Judge:
    settings = JudgeSettings(
        name=config.name,
        model=config.model,
        rubric=config.rubric,
        timeout_seconds=config.timeout_seconds,
        attempts=config.attempts,
        concurrent_requests=config.concurrent_requests,
        decoy_fraction=config.decoy_fraction,
        max_fooled=config.max_fooled,
        price_input=config.price_input,
        price_output=config.price_output,
        max_characters=config.max_characters,
        reply_tokens=config.reply_tokens,
    )
    return Judge(settings, _server(config, session), emit)


def _reward_model(config: RewardModelScorer, session: aiohttp.ClientSession | None, emit: Emit) -> RewardModel:
    sigmoid = Sigmoid(config.center, config.scale)
    if not config.url:
        folder = Path(config.model)
        check_classifier(folder)
        return RewardModel(
            config.name, LocalReward(RewardProcess(folder), timeout_seconds=config.timeout_seconds), sigmoid, emit
        )
    source = RewardServer(
        _server(config, session),
        model=config.model,
        api=config.api,
        timeout_seconds=config.timeout_seconds,
        concurrent_requests=config.concurrent_requests,
    )
    return RewardModel(config.name, source, sigmoid, emit)


def _server(config: JudgeScorer | RewardModelScorer, session: aiohttp.ClientSession | None) -> ScoringServer:
    if session is None:
        raise ValueError(f"it asks {config.url}, which is not done here")
    key = config.api_key.get_secret_value() if config.api_key else None
    return ScoringServer(config.url, api_key=key, session=session)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read schema_file {path}: {error.strerror}") from None
    except RecursionError:
        raise ValueError(f"schema_file {path} is nested too deeply; flatten it") from None
    except ValueError as error:
        raise ValueError(f"schema_file {path} is not JSON: {error}") from None
