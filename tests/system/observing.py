"""What the tests of dashboards and rules share: questions to a Prometheus, clients of a gateway."""

from __future__ import annotations

import json
import math
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any


def query(address: str, expression: str) -> list[dict[str, Any]]:
    """The present series of a PromQL expression."""
    return _ask(address, "query", {"query": expression})


def finite_points(address: str, expression: str, start: float, end: float, step: float = 2.0) -> int:
    """How many points with a number (not NaN) an expression has in a span of Unix times."""
    found = _ask(address, "query_range", {"query": expression, "start": start, "end": end, "step": step})
    return sum(math.isfinite(float(value)) for series in found for _, value in series["values"])


def _ask(address: str, path: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    url = f"{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            found: list[dict[str, Any]] = json.load(response)["data"]["result"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{parameters['query']}: {error.read().decode()}") from None
    return found


@contextmanager
def clients(gateway_url: str) -> Iterator[None]:
    """Two clients ask all the time, one with streams; a third makes mistakes."""
    stop, numbers = threading.Event(), count()

    def ask_on(stream: bool, mistaken: bool) -> None:
        while not stop.wait(1.0 if mistaken else 0.1):
            content = f"Hello {next(numbers)}"
            body = {"model": "assistant", "messages": [{"role": "user", "content": content}], "max_tokens": 8}
            data = b"{" if mistaken else json.dumps({**body, "stream": stream}).encode()
            request = urllib.request.Request(
                f"{gateway_url}/v1/chat/completions", data, {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    response.read()
            except OSError:
                continue

    threads = [
        threading.Thread(target=ask_on, args=kind, daemon=True)
        for kind in ((True, False), (False, False), (False, True))
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
