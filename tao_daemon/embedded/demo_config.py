"""The demo's config.toml: the file that `tao-daemon run` and `tao-daemon gateway` are started with.

Pure. Everything that is not written here keeps its default; what is, says why.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tao_daemon.embedded.traffic import MAX_TOKENS, hints

TOPIC: Final = "prompts"
PUBLIC_MODEL: Final = "assistant"
BASE_MODEL: Final = "base"
HELD_OUT_PROMPTS: Final = 48


@dataclass(frozen=True, slots=True)
class DemoPlaces:
    """Where the demo's parts are. URLs without a path."""

    work_dir: Path
    model_dir: Path
    bootstrap: str
    vllm: str
    control_port: int
    gateway_port: int

    @property
    def schema_file(self) -> Path:
        return self.work_dir / "answer.schema.json"

    @property
    def data_dir(self) -> Path:
        return self.work_dir / "data"

    @property
    def control(self) -> str:
        return f"http://127.0.0.1:{self.control_port}"

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"


def config_text(places: DemoPlaces, *, seed: int) -> str:
    """The file. JSON strings are TOML strings."""
    q = _quoted
    return f"""\
# Written by `tao-daemon demo`. See config.toml of the project for every key and its default.

[daemon]
data_dir = {q(places.data_dir)}
shutdown_seconds = 8.0

[kafka]
bootstrap_servers = [{q(places.bootstrap)}]
topic = {q(TOPIC)}
consumer_group = "tao-demo"

[buffer]
# The gate needs its held-out prompts within minutes: more of them than usual.
held_out_fraction = 0.3
min_free_disk_mib = 64

[round]
prompts = 16
min_new_prompts = 140
min_interval_seconds = 20.0
seed = {seed}

[sampling]
completions = 6
max_tokens = {MAX_TOKENS}
# With 6 + 4 completions each this fills 80 of the server's 96 slots; live questions have the rest.
concurrent_prompts = 8
# Two cores do everything here: live questions are slow while a round samples. Production's default is 2.
live_slowdown = 0.0

{_strategies()}
# Nobody labelled anything: an answer is as good as it meets the schema.
[[scorers]]
name = "ticket-json"
type = "json_schema"
schema_file = {q(places.schema_file)}

[training]
base_model = {q(places.model_dir)}
rank = 16
alpha = 32
# One round must show something: larger steps, and more freedom in each, than one would give in production.
learning_rate = 1e-3
epochs = 2
groups_per_step = 4
clip_high = 4.0
kl_budget = 5.0

[gate]
# Smaller than recommended (200 for a verifier), as the verdict says: a demo has minutes.
prompts = {HELD_OUT_PROMPTS}
min_prompts = {HELD_OUT_PROMPTS}
divergence_prompts = 24

[serving]
replicas = [{q(places.vllm)}]
base_model = {q(BASE_MODEL)}
max_rank = 16

[rollout]
# The gate and the evidence alone decide. The default is "approve": a person does.
mode = "auto"
# Minutes instead of hours, and as few conversations as a demo's clients have.
shadow_pairs = 12
shadow_pairs_max = 32
canary_fractions = [0.25, 0.5]
step_seconds = 5.0
step_conversations = 6
bake_seconds = 10.0
bake_conversations = 12
evaluate_seconds = 1.0

[gateway]
port = {places.gateway_port}
public_model = {q(PUBLIC_MODEL)}
daemon_url = {q(places.control)}
# What clients ask becomes tomorrow's training prompts.
capture = true

[control]
port = {places.control_port}
"""


def _strategies() -> str:
    """Exploration: the same ticket, asked with more help. Training teaches the model to do without it."""
    tables = [
        f"""\
[[sampling.strategies]]
name = {_quoted(name)}
completions = 1
instruction = {_quoted(instruction)}
"""
        for name, instruction in hints().items()
    ]
    return "\n".join(
        ("# Exploration: the same ticket with an example. Training teaches the model to do without it.", *tables)
    )


def _quoted(value: object) -> str:
    return json.dumps(str(value), ensure_ascii=False)
