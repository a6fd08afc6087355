"""Real servers for the tests, started once per session, and the daemon as its users start it: a process.

A broker takes 40 ms, the model server about a minute; both live on this machine's loopback.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from kafka import KafkaProducer

from tao_daemon.embedded.broker import EmbeddedBroker
from tao_daemon.embedded.processes import free_port, guarded

# A busy machine must not fail a property.
settings.register_profile("tao", deadline=None)
settings.load_profile("tao")

# Started in the background of a script we would ignore SIGINT, and so would every process that we start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.tiny_sites"]

T = TypeVar("T")
START_SECONDS = 240.0
_NONE: Mapping[str, str] = MappingProxyType({})


class Background:
    """An event loop in a thread of its own, for servers that outlive one test."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()

    def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        future = asyncio.run_coroutine_threadsafe(self._stack.enter_async_context(context), self._loop)
        return future.result(START_SECONDS)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    """Where session-long servers run."""
    running = Background()
    yield running
    running.close()


@pytest.fixture(scope="session")
def bootstrap(background: Background, tmp_path_factory: pytest.TempPathFactory) -> str:
    """host:port of a real, empty broker."""
    log = tmp_path_factory.mktemp("broker") / "broker.log"
    return background.enter(EmbeddedBroker(log_path=log)).bootstrap


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random-weight Llama of two layers with a real tokenizer and chat template."""
    from tao_daemon.embedded.model import tiny_random_model

    return tiny_random_model(tmp_path_factory.mktemp("model") / "tiny")


@dataclass(frozen=True)
class Server:
    url: str
    model: Path


@pytest.fixture(scope="session")
def tiny_vllm(background: Background, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A real vLLM that serves the tiny model as `base`."""
    from tao_daemon.embedded.vllm_server import EmbeddedVllm

    log = tmp_path_factory.mktemp("vllm") / "vllm.log"
    server = background.enter(EmbeddedVllm(tiny_model, served_model_name="base", log_path=log))
    return Server(server.base_url, tiny_model)


@dataclass
class Process:
    """`tao-daemon …` as a child that never outlives the tests."""

    arguments: list[str]
    log: Path
    popen: subprocess.Popen[bytes] | None = field(default=None)
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                guarded([sys.executable, "-m", "tao_daemon", *self.arguments]),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **self.environment},
            )

    @property
    def pid(self) -> int:
        """The command itself, below its guard."""
        assert self.popen is not None
        path = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children")
        return wait_until(lambda: [int(pid) for pid in path.read_text().split()], 10, "the process to start")[0]

    def kill(self) -> None:
        """SIGKILL to the command and nothing else, as the kernel would."""
        assert self.popen is not None
        os.kill(self.pid, signal.SIGKILL)
        self.popen.wait(30)

    def stop(self, seconds: float = 40.0) -> int:
        """SIGTERM; the exit status."""
        if self.popen is None or self.popen.poll() is not None:
            return self.popen.returncode if self.popen else 0
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(seconds)

    def close(self) -> None:
        if self.popen and self.popen.stdin:
            self.popen.stdin.close()
            self.popen.wait(30)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


@dataclass(frozen=True)
class Answer:
    """Of an HTTP server, errors included."""

    status: int
    headers: Message
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


@dataclass
class Site:
    """One data directory with its config, the daemon and the gateway that use it."""

    root: Path
    config: dict[str, Any]
    daemon: Process
    gateway: Process
    control_url: str
    gateway_url: str

    def write_config(self) -> Path:
        path = self.root / "config.toml"
        path.write_text(to_toml(self.config))
        return path

    def start(self, *, gateway: bool = False) -> None:
        self.write_config()
        self.daemon.start()
        self.wait(lambda: get_json(f"{self.control_url}/readyz")["ready"], 60, "the daemon to be ready")
        if gateway:
            self.gateway.start()
            self.wait(lambda: get_json(f"{self.gateway_url}/v1/models"), 60, "the gateway to listen")

    @property
    def token(self) -> str:
        """The local administrator's."""
        return Path(self.config["daemon"]["data_dir"], "control.token").read_text()

    def ask(
        self, method: str, path: str, body: Any = None, token: str | None = None, headers: Mapping[str, str] = _NONE
    ) -> Answer:
        """A request to the control API; a body that is not bytes is sent as JSON. No token is sent unless given."""
        sent = {"Content-Type": "application/json", **headers}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.control_url + path, data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def issue(self, name: str, *scopes: str) -> str:
        """A new token with the scopes."""
        answer = self.ask("POST", "/v1/tokens", {"name": name, "scopes": scopes, "reason": "test"}, self.token)
        assert answer.status == 201, answer.raw
        return str(answer.json["token"])

    def get(self, path: str) -> Any:
        """GET from the control API, with the local token."""
        return get_json(self.control_url + path, token=self.token)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/v1/status")
        return found

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        try:
            return wait_until(condition, seconds, what)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n--- daemon log ---\n{self.daemon.tail()}") from None

    def wait_status(self, condition: Callable[[dict[str, Any]], Any], seconds: float, what: str) -> dict[str, Any]:
        """Wait until the status fulfils the condition; the status that did."""

        def look() -> dict[str, Any] | None:
            status = self.status()
            return status if condition(status) else None

        found: dict[str, Any] = self.wait(look, seconds, what)
        return found

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the CLI, with this site's config where the command takes one."""
        command = [sys.executable, "-m", "tao_daemon", *arguments]
        env = {**os.environ, "TAO_CONFIG": str(self.root / "config.toml"), "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)

    def close(self) -> None:
        self.gateway.close()
        self.daemon.close()


@pytest.fixture
def make_site(tmp_path: Path, bootstrap: str) -> Iterator[Callable[..., Site]]:
    """Builds sites below tmp_path; sections given as keyword arguments are merged into a base config."""
    sites: list[Site] = []

    def make(name: str = "site", **sections: Any) -> Site:
        root = tmp_path / name
        root.mkdir()
        control, gateway = free_port(), free_port()
        base: dict[str, Any] = {
            "daemon": {"data_dir": str(root / "data")},
            "kafka": {
                "bootstrap_servers": [bootstrap],
                "topic": f"prompts-{os.urandom(4).hex()}",
                "dead_letter_topic": f"dead-{os.urandom(4).hex()}",
                "max_wait_seconds": 0.1,
            },
            "control": {"port": control},
            "gateway": {"port": gateway, "daemon_url": f"http://127.0.0.1:{control}"},
        }
        for section, values in sections.items():
            base[section] = {**base.get(section, {}), **values} if isinstance(values, dict) else values
        path = str(root / "config.toml")
        site = Site(
            root,
            base,
            Process(["run", "--config", path], root / "daemon.log"),
            Process(["gateway", "--config", path], root / "gateway.log"),
            f"http://127.0.0.1:{control}",
            f"http://127.0.0.1:{gateway}",
        )
        sites.append(site)
        return site

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def produce(bootstrap: str) -> Callable[..., list[tuple[int, int]]]:
    """Sends values to a topic; (partition, offset) of each."""

    def send(topic: str, values: list[Any], headers: list[tuple[str, bytes]] | None = None) -> list[tuple[int, int]]:
        producer = KafkaProducer(bootstrap_servers=bootstrap)
        try:
            futures = [
                producer.send(topic, value if isinstance(value, bytes) else json.dumps(value).encode(), headers=headers)
                for value in values
            ]
            found = [future.get(timeout=30) for future in futures]
        finally:
            producer.close()
        return [(record.partition, record.offset) for record in found]

    return send


def get_json(url: str, timeout: float = 5.0, token: str | None = None) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as response:
        return json.load(response)


def wait_until(condition: Callable[[], T | None], seconds: float, what: str) -> T:
    """Poll until the condition is true; servers that do not answer yet count as not."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = condition()
        except (OSError, urllib.error.URLError):
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.1)


def to_toml(config: dict[str, Any]) -> str:
    """Just enough TOML for configs made of tables, arrays of tables and plain values."""
    lines: list[str] = []
    for section, values in config.items():
        if isinstance(values, list):
            for item in values:
                lines += [f"[[{section}]]", *_pairs(item, f"{section}"), ""]
        else:
            lines += [f"[{section}]", *_pairs(values, section), ""]
    return "\n".join(lines)


def _pairs(values: dict[str, Any], section: str) -> list[str]:
    plain = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not _is_tables(value)]
    for key, value in values.items():
        if _is_tables(value):
            for item in value:
                plain += [f"[[{section}.{key}]]", *_pairs(item, f"{section}.{key}")]
    return plain


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
