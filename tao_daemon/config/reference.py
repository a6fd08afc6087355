"""Writes config.toml, the reference of every key, from the types.

`python -m tao_daemon.config.reference > config.toml`
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from tao_daemon.config.file import Config
from tao_daemon.config.scorers import Match, ScorerConfig
from tao_daemon.config.values import Section

_HEAD: Final = """\
# tao-daemon: every key, its unit and its default. This file is the reference; a key left out has the value shown.
# Check yours with `tao-daemon check-config FILE`. Unknown keys are errors. Secrets are references: "env:NAME" or
# "file:PATH". Relative paths are relative to the working directory.
"""
_TITLES: Final = {
    "daemon": "The process itself.",
    "kafka": "Where prompts come from.",
    "buffer": "What is kept, and how it is split.",
    "round": "When a round starts and how large it is.",
    "sampling": "TAO stage 1: completions.",
    "scorers": "TAO stage 2: rewards, without labels. A prompt that no scorer matches never trains. A request's own\n"
    "# `response_format` scores for free, without an entry here.",
    "training": "TAO stage 3: the LoRA adapter.",
    "gate": "The verdict on a candidate, on held-out prompts.",
    "serving": "The vLLM servers. Start them with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.",
    "rollout": "How an accepted candidate gets into serving.",
    "gateway": "What clients ask (`tao-daemon gateway`).",
    "control": "Status, metrics, the console and the verbs.",
    "events": "Who is told what happens; docs/events.md lists the types.",
}
_EXAMPLES: Final = {
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_username": "tao",
    "sasl_password": "env:KAFKA_PASSWORD",
    "ssl_cafile": "/etc/ssl/kafka-ca.pem",
    "api_key": "env:VLLM_API_KEY",
    "routes_file": "./data/routes.json",
    "tenant": "acme",
    "model": "assistant",
    "system_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "schema_file": "ticket.schema.json",
    "pattern": "(yes|no)",
    "callable": "my_scorers:polite",
    "expected": "regex:What is ([^?\\n]{1,200})\\?",
    "fixture": "shop.sql",
    "url": "http://127.0.0.1:8200",
    "answer": "after:Answer:",
    "daemon_token": "file:/etc/tao/gateway.token",
}
"""Of keys that have no default."""
_TABLES: Final = {
    "sampling.strategies": """\
# Exploration: the same prompt asked in another way. Training still conditions on the plain prompt, so what exploration
# finds becomes the model's own. One [[sampling.strategies]] table per strategy:
# [[sampling.strategies]]
# name = "hint"
# type = "instruction"                     # | chain_of_thought | few_shot | structured | template
# instruction = "Answer with one JSON object and nothing else."
# template = "{prompt}\\nBe brief."         # template: takes the place of the last user message
# answer = "after:Answer:"                 # chain_of_thought: where the answer is. It asks for up to twice max_tokens,
#                                          # so the server may refuse a long prompt
# examples = 2                             # few_shot: the best earlier completions of the same tenant
# schema_file = "answer.schema.json"       # structured: by default the request's own response_format
# completions = 2                          # per prompt
# temperature = 1.0                        # of these completions; plain ones are always sampled at 1
# match_system_sha256 = "9f86d0818…"       # only for prompts of this task: the whole digest""",
    "gate.scorers": """\
# Other scorers for the gate than for training, wherever those are a judge or a model: what was trained to please one
# must not be judged by it. One [[gate.scorers]] table each, with the keys of [[scorers]].""",
    "serving.path_maps": """\
# Where the servers see the adapters, when they mount data_dir elsewhere:
# [[serving.path_maps]]
# local = "/var/lib/tao/adapters"
# server = "/mnt/tao/adapters\"""",
    "rollout.freeze": """\
# Windows in which nothing is advanced; aborting and undoing always work. Times are UTC:
# [[rollout.freeze]]
# days = ["fri", "sat", "sun"]             # all when left out
# start = "16:00"
# end = "08:00"                            # not after `start`: on the next day""",
    "events.webhooks": """\
# Where else events are posted. One [[events.webhooks]] table each:
# [[events.webhooks]]
# name = "on-call"                         # in metrics and logs
# url = "env:SLACK_WEBHOOK_URL"            # a secret: env:NAME or file:PATH
# format = "slack"                         # slack | cloudevents
# types = ["rollout.*", "undo.*"]          # all when left out
# timeout_seconds = 5.0
# secret = "env:WEBHOOK_SECRET"            # cloudevents: signs each request, X-Tao-Signature""",
}
"""Arrays of tables, as comments: TOML has no way to show one with its defaults."""


def reference() -> str:
    """The text of config.toml: every key with its description and its default."""
    return "\n".join([_HEAD, *(line for name in Config.model_fields for line in _section(name, Config()))])


def _section(name: str, config: Config) -> Iterator[str]:
    yield f"# {_TITLES[name]}"
    if name == "scorers":
        yield from _scorers()
        return
    yield f"[{name}]"
    section = getattr(config, name)
    tables = []
    for key, field in type(section).model_fields.items():
        if f"{name}.{key}" in _TABLES:
            tables.append(_TABLES[f"{name}.{key}"])
        else:
            yield _described(field)
            value = getattr(section, key)
            line = f"# {key} = {_toml(_EXAMPLES[key])}" if value is None else f"{key} = {_toml(value)}"
            choices = _choices(field.annotation, of=_EXAMPLES[key] if value is None else value)
            yield f"{line:<43}# {choices}" if choices else line
    for table in tables:
        yield f"\n{table}"
    yield ""


def _scorers() -> Iterator[str]:
    """The keys of all types first, then each type with its own, and with those whose default is another there."""
    kinds: tuple[type[Section], ...] = get_args(get_args(ScorerConfig)[0])
    common = [key for key in kinds[0].model_fields if all(key in kind.model_fields for kind in kinds) and key != "type"]
    yield "# [[scorers]]"
    yield from _commented("name", "ticket", "In reports and metrics.")
    yield from _commented("type", "json_schema", "One of those below.")
    for key in common:
        field = kinds[0].model_fields[key]
        if not field.is_required() and key != "match":
            yield from _commented(key, field.default, field.description)
    yield "# [scorers.match]"
    for key, field in Match.model_fields.items():
        yield from _commented(key, _EXAMPLES[key], field.description)
    for kind in kinds:
        tag = get_args(kind.model_fields["type"].annotation)[0]
        yield f"#\n# {tag}: {' '.join((kind.__doc__ or '').split())}"
        for key, field in kind.model_fields.items():
            if key != "type" and (key not in common or field.default != kinds[0].model_fields[key].default):
                shown = field.default if not field.is_required() and field.default is not None else _EXAMPLES[key]
                yield from _commented(key, shown, field.description)
    yield ""


def _commented(key: str, value: Any, description: str | None) -> Iterator[str]:
    """`# key = value    # description`, the description below where it would not fit."""
    shown = f"# {key} = {_toml(value)}"
    words = " ".join((description or "").split())
    if len(shown) <= 42 and len(words) <= 74:
        yield f"{shown:<43}# {words}"
        return
    yield shown
    yield textwrap.fill(words, 118, initial_indent="#     # ", subsequent_indent="#     # ", break_on_hyphens=False)


def _described(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split())
    return textwrap.fill(text, 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _choices(annotation: Any, *, of: Any) -> str:
    """ "| other | another": what else a key may be that may not be anything."""
    allowed = [each for each in _literals(annotation) if each != of]
    return " ".join(f"| {each}" for each in allowed)


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return [*get_args(annotation)]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [each.value for each in annotation]
    return [
        found
        for part in get_args(annotation)
        if get_origin(annotation) in (Union, UnionType)
        for found in _literals(part)
    ]


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case Enum():
            return json.dumps(value.value)
        case Path():
            return json.dumps(str(value) if value.is_absolute() else f"./{value}")
        case int():
            return f"{value:_}" if value >= 10_000 else str(value)
        case float():
            return repr(value)
        case tuple():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case _:
            return json.dumps(value)


if __name__ == "__main__":
    print(reference(), end="")
