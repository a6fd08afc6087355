"""What a gateway costs: nothing between (direct), nginx, LiteLLM's proxy and ours, side by side on stub servers.

Ours runs as deployed: a canary split with evidence counters, metrics, and every prompt captured into Kafka. Each round
measures every target in turn, so that a drifting machine hits all of them; the medians over the rounds count.
Needs the Debian packages wrk and nginx-light (installed when missing) and a virtual environment of its own for LiteLLM
(made when missing, a minute or two).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.publishing import publish
from tao_daemon.embedded.broker import EmbeddedBroker
from tao_daemon.embedded.processes import Command, ManagedProcess, free_port

ROUNDS, SECONDS, CONNECTIONS = 3, 4, (1, 16)
LITELLM = "litellm[proxy]==1.106.2"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tao-daemon-bench" / "litellm"
EVENTS = 20
ANSWER = {
    "id": "chatcmpl-0123456789",
    "object": "chat.completion",
    "created": 1_764_000_000,
    "model": "r2",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok " * 30}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 40, "completion_tokens": 30, "total_tokens": 70},
}
EVENT = {
    "id": "chatcmpl-0123456789",
    "object": "chat.completion.chunk",
    "created": 1_764_000_000,
    "model": "r2",
    "choices": [{"index": 0, "delta": {"content": "ok "}, "finish_reason": None}],
}
LUA = """
local bodies, turn = {}, 0
for i = 1, 2048 do
  bodies[i] = string.format('{"model":"MODEL","stream":STREAM,"messages":[' ..
    '{"role":"system","content":"You are brief."},{"role":"user","content":"%d: SENTENCE"}]}', i)
end
local headers = {["Content-Type"] = "application/json"}
request = function()
  turn = turn % 2048 + 1
  return wrk.format("POST", "/v1/chat/completions", headers, bodies[turn])
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"rps": %f, "p50": %f, "p99": %f, "errors": %d}\\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
  io.write(string.format('ERRORS connect %d, read %d, write %d, status %d, timeout %d\\n',
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""
# Exit status 101 keeps Debian from starting nginx as a service.
APT = """
sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
policy=/usr/sbin/policy-rc.d
if ! [ -e $policy ]; then
    printf '#!/bin/sh\\nexit 101\\n' | $sudo tee $policy >/dev/null
    $sudo chmod +x $policy
    trap '$sudo rm -f $policy' EXIT
fi
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends wrk nginx-light >/dev/null
"""


@dataclass(frozen=True)
class Target:
    name: str
    port: int
    stream_port: int
    """The same target before the stub that streams."""
    model: str = "assistant"


class Stub(asyncio.Protocol):
    """An OpenAI server that answers at once: a stream, one event per turn of the loop."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._data = b""
        events = [b"data: " + json.dumps(EVENT, separators=(",", ":")).encode() + b"\n\n"] * EVENTS
        self._chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in [*events, b"data: [DONE]\n\n"]]

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if len(body) < int(lengths[0][15:]):
            return
        self._data = b""
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self._next(0)

    def _next(self, number: int) -> None:
        if number == len(self._chunks):
            self._transport.write(b"0\r\n\r\n")
            return
        self._transport.write(self._chunks[number])
        asyncio.get_running_loop().call_soon(self._next, number + 1)


async def stub_server(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", port)
    await server.serve_forever()


class Bench:
    """Servers in one scratch directory; they end with the stack."""

    def __init__(self, stack: AsyncExitStack, root: Path) -> None:
        self._stack = stack
        self._root = root

    async def start(self, name: str, argv: Sequence[str], port: int, env: dict[str, str] | None = None) -> None:
        command = Command(name, argv, self._root / f"{name}.log", env={**os.environ, **(env or {})})
        process = await self._stack.enter_async_context(await ManagedProcess.start(command))
        await process.wait_ready(lambda: _answers(port), deadline_s=180, interval_s=0.2)

    async def plain_stub(self) -> int:
        port = free_port()
        body = json.dumps(ANSWER, separators=(",", ":")).replace("'", "")
        answer = f"location / {{ default_type application/json; return 200 '{body}'; }}"
        await self._nginx("stub", port, f"server {{ listen 127.0.0.1:{port}; {answer} }}")
        return port

    async def stream_stub(self) -> int:
        port = free_port()
        await self.start("stream-stub", [sys.executable, "-m", "bench.gateway", "--stub", str(port)], port)
        return port

    async def nginx(self, upstream: int) -> int:
        port = free_port()
        server = f"""upstream models {{ server 127.0.0.1:{upstream}; keepalive 64; }}
        server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://models; proxy_http_version 1.1;
          proxy_set_header Connection ""; proxy_buffering off; }} }}"""
        await self._nginx(f"nginx-{upstream}", port, server)
        return port

    async def litellm(self, upstream: int) -> int:
        port = free_port()
        model = {"model": "openai/r2", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}
        config = self._root / f"litellm-{upstream}.yaml"
        # JSON is YAML.
        config.write_text(json.dumps({"model_list": [{"model_name": "assistant", "litellm_params": model}]}))
        argv = [str(CACHE / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        # No authentication, as with every other target here: its check would be an unfair cost. Loopback only.
        env = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        env |= {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"}
        await self.start(f"litellm-{upstream}", argv, port, env)
        return port

    async def tao(self, upstream: int, bootstrap: str, processes: int = 1) -> int:
        port = free_port()
        root = self._root / f"tao-{upstream}-{processes}"
        root.mkdir()
        split = {"candidate": "r2", "fraction": 0.25, "salt": "bench", "slow_seconds": 1.0}
        (root / "routes.json").write_text(json.dumps({"generation": 1, "adapter": "r1", "previous": None, **split}))
        config = root / "config.toml"
        config.write_text(
            f'[daemon]\ndata_dir = "{root}"\nlog_level = "warning"\n[kafka]\nbootstrap_servers = ["{bootstrap}"]\n'
            f'[serving]\nreplicas = ["http://127.0.0.1:{upstream}"]\n'
            f"[gateway]\nport = {port}\nprocesses = {processes}\ncapture = true\ncapture_queue = 100000\n"
        )
        argv = [sys.executable, "-m", "tao_daemon", "gateway", "--config", str(config)]
        await self.start(f"tao-{upstream}-{processes}", argv, port)
        return port

    async def _nginx(self, name: str, port: int, server: str) -> None:
        directory = self._root / name
        directory.mkdir()
        config = directory / "nginx.conf"
        config.write_text(
            f"daemon off; worker_processes 1; pid {directory}/pid; error_log stderr error;\n"
            "events { worker_connections 1024; }\n"
            f"http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {directory}/b;\n"
            f"proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u;\n"
            f"scgi_temp_path {directory}/s; {server} }}\n"
        )
        await self.start(name, ["nginx", "-e", "stderr", "-c", str(config)], port)

    async def load(self, port: int, model: str, connections: int, stream: bool) -> dict[str, float]:
        """One run of wrk: requests per second, milliseconds at p50 and p99, errors."""
        script = self._root / "load.lua"
        text = LUA.replace("MODEL", model).replace("STREAM", str(stream).lower())
        script.write_text(text.replace("SENTENCE", "Where is my parcel? It should have come on Monday. " * 3))
        argv = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{SECONDS}s",
            "--timeout",
            "30s",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}",
        ]
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        out, _ = await asyncio.wait_for(process.communicate(), SECONDS + 60)
        line = next(line for line in out.decode().splitlines() if line.startswith("RESULT "))
        found: dict[str, float] = json.loads(line.removeprefix("RESULT "))
        if found["errors"]:
            errors = next(line for line in out.decode().splitlines() if line.startswith("ERRORS "))
            raise RuntimeError(f"the numbers would mean nothing: port {port}, model {model}, stream {stream}: {errors}")
        return found


async def _answers(port: int) -> bool:
    """Whether a request gets an answer, whatever it is: errors under load end the benchmark."""
    body = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
    try:
        timeout = aiohttp.ClientTimeout(total=5)
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, json=body) as response:
            await response.read()
            return True
    except (aiohttp.ClientError, TimeoutError):
        return False


def prepare() -> None:
    """Install what is measured against."""
    if any(shutil.which(command) is None for command in ("wrk", "nginx")):
        subprocess.run(["bash", "-euc", APT], check=True)
    if not (CACHE / LITELLM).exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(CACHE)], check=True)
        subprocess.run([str(CACHE / "bin" / "pip"), "install", "-q", LITELLM], check=True)
        (CACHE / LITELLM).touch()


async def measure() -> dict[tuple[str, int, bool], dict[str, float]]:
    """Medians by (target, connections, stream)."""
    async with AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tao-bench-")))
        bench = Bench(stack, root)
        broker = await stack.enter_async_context(EmbeddedBroker(log_path=root / "broker.log"))
        plain, stream = await bench.plain_stub(), await bench.stream_stub()
        targets = [
            Target("direct", plain, stream, "r2"),
            Target("nginx", await bench.nginx(plain), await bench.nginx(stream), "r2"),
            Target("litellm", await bench.litellm(plain), await bench.litellm(stream)),
            Target("tao", await bench.tao(plain, broker.bootstrap), await bench.tao(stream, broker.bootstrap)),
            Target("tao_2_processes", await bench.tao(plain, broker.bootstrap, 2), 0),
        ]
        runs: dict[tuple[str, int, bool], list[dict[str, float]]] = {}
        cases = [(connections, False) for connections in CONNECTIONS] + [(CONNECTIONS[-1], True)]
        for _ in range(ROUNDS):
            for connections, streamed in cases:
                for target in targets:
                    if port := target.stream_port if streamed else target.port:
                        found = await bench.load(port, target.model, connections, streamed)
                        runs.setdefault((target.name, connections, streamed), []).append(found)
    return {
        key: {name: statistics.median(run[name] for run in found) for name in found[0]} for key, found in runs.items()
    }


def summarise(medians: dict[tuple[str, int, bool], dict[str, float]]) -> dict[str, Any]:
    """Requests per second at most connections; milliseconds that one connection waits longer than directly."""
    names = list(dict.fromkeys(name for name, _, _ in medians))
    one, many = CONNECTIONS
    rate = {name: medians[name, many, False]["rps"] for name in names}
    streams = {name: medians[name, many, True]["rps"] for name in names if (name, many, True) in medians}
    direct = medians["direct", one, False]
    return {
        "requests_per_second": rate,
        "added_p50_ms": {name: medians[name, one, False]["p50"] - direct["p50"] for name in names},
        "added_p99_ms": {name: medians[name, one, False]["p99"] - direct["p99"] for name in names},
        "ratio_to_litellm": {name: rate[name] / rate["litellm"] for name in names},
        "streams_per_second": streams,
        "streams_ratio_to_litellm": {name: value / streams["litellm"] for name, value in streams.items()},
        "connections": {"requests_per_second": many, "added_ms": one},
        "litellm": LITELLM,
    }


def main() -> None:
    prepare()
    medians = asyncio.run(measure())
    rows = [
        {
            "target": name,
            "connections": connections,
            "answer": f"stream of {EVENTS}" if streamed else "plain",
            "requests_per_second": found["rps"],
            "p50_ms": found["p50"],
            "p99_ms": found["p99"],
        }
        for (name, connections, streamed), found in medians.items()
    ]
    publish("gateway", rows, summarise(medians))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stub"]:
        import uvloop

        uvloop.run(stub_server(int(sys.argv[2])))
    else:
        main()
