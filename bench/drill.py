"""A drill for whoever is on call: a real installation, an adapter that goes bad, a page, and you.

A settled adapter begins to answer 30 % of its requests with an error. The project's own alert rules page. What to do is
in docs/runbook.md. The drill ends when the fault's adapter serves nobody and the alert has resolved, and says how long
each part took.

    python -m bench.drill                 # you are on call: it prints the page and waits
    python -m bench.drill --undo          # it undoes by itself at the page: measures the machinery alone

fault → page → (you) → undone → resolved → bench/results/drill.json
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.faulty_front import Faults
from bench.live_load import LiveLoad
from bench.monitoring import Monitoring, monitoring
from bench.past import settling
from bench.publishing import publish, published
from bench.stack import Stack, stack

ALERT = "TaoGatewayErrors"
ERRORS = 0.3
CLIENTS = 4
_QUIET_SECONDS = 60.0
_PAGE_SECONDS = 600.0
_HUMAN_SECONDS = 3600.0
_SECTIONS = {"kafka": "enabled = false", "sampling": "max_tokens = 12", "serving": "reconcile_seconds = 1.0"}


async def drill(undo: bool) -> dict[str, Any]:
    """Run it; a row with the seconds of every part."""
    with tempfile.TemporaryDirectory(prefix="tao-drill-") as directory:
        root, faults = Path(directory), Faults()
        async with stack(root, replicas=1, adapters=2, sections=_SECTIONS, front=faults.front) as running:
            good, bad = running.adapters
            faults.model = bad
            running.remember([*settling(1, good), *settling(2, bad)])
            await running.start("daemon")
            await running.start("gateway")
            await running.until(lambda s: s["incumbent"]["adapter"] == bad and not s["fleet"]["unready"], 120, "it")
            jobs = {"tao-daemon": [running.control[7:]], "tao-gateway": [running.gateway[7:]]}
            async with (
                monitoring(root / "monitoring", jobs) as watching,
                LiveLoad(running.gateway, clients=CLIENTS, max_tokens=8, pause_seconds=0.2) as load,
            ):
                return await _incident(running, watching, load, faults, bad, undo)


async def _incident(
    running: Stack, watching: Monitoring, load: LiveLoad, faults: Faults, bad: str, undo: bool
) -> dict[str, Any]:
    await asyncio.sleep(_QUIET_SECONDS)
    assert not watching.told, f"an alert before the fault: {watching.told}"
    faults.errors, began = ERRORS, time.monotonic()
    paged, alert = await watching.alert(ALERT, "firing", _PAGE_SECONDS, since=began)
    _show(alert, running, paged - began)
    if undo:
        await running.post("/v1/rollout/undo", reason="the drill's own undo")
    await running.until(lambda s: s["incumbent"]["adapter"] != bad, _HUMAN_SECONDS, "somebody to undo")
    undone = time.monotonic()
    resolved, _ = await watching.alert(ALERT, "resolved", _PAGE_SECONDS, since=undone)
    failed_after = sum(failure.began > undone + 1.0 for failure in load.failures)
    row = {
        "fault_to_page_seconds": round(paged - began, 1),
        "page_to_undone_seconds": round(undone - paged, 1),
        "undone_to_resolved_seconds": round(resolved - undone, 1),
        "failed_requests": len(load.failures),
        "failed_requests_after_the_undo": failed_after,
        "requests": load.requests,
        "responder": "the drill" if undo else "a person",
    }
    print(f"\nThe alert has resolved. {row}\n", flush=True)
    return row


def _show(alert: Any, running: Stack, seconds: float) -> None:
    """The page, as Alertmanager sends it, and where the installation is."""
    notes = alert["annotations"]
    print(
        f"\nPAGE after {seconds:.0f} s: {notes['summary']}\n{notes['description']}\n{notes['runbook_url']}\n"
        f"Commands take --config {running.root / 'config.toml'} (or TAO_CONFIG).\n",
        flush=True,
    )


def run() -> None:
    """Drill and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--undo", action="store_true", help="undo at the page, without a person")
    latest = asyncio.run(drill(parser.parse_args().undo))
    # Beside what the other responder took.
    rows = [latest, *(row for row in published("drill") if row["responder"] != latest["responder"])]
    publish("drill", rows, {"drill": rows})


if __name__ == "__main__":
    run()
