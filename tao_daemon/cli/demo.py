"""`tao-daemon demo`: the whole loop on this machine, shown while it happens."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tao_daemon.embedded.demo import DemoSettings

_INSTALL_SECONDS = "TAO_INSTALL_SECONDS"


@click.command()
@click.option("--once", is_flag=True, help="Exit 0 after the first promotion; otherwise the demo runs until Ctrl-C.")
@click.option(
    "--report",
    "report_path",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Write the report of the latest promotion as JSON.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=1500.0,
    show_default=True,
    metavar="SECONDS",
    help="With --once: fail when no adapter is promoted by then.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Work in DIR and leave everything there: config, buffer, rounds, adapters, logs.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of traffic and sampling.")
def command(once: bool, report_path: Path | None, time_limit: float, keep: Path | None, seed: int) -> None:
    """See the whole loop on this machine, with a real small model and nothing to set up.

    Starts a Kafka broker, a vLLM server, the daemon and a gateway; sends support tickets; and shows how rounds turn
    them into an adapter that answers better, until it is promoted. Ctrl-C ends everything it started.

    \b
    Examples:
      tao-daemon demo
      tao-daemon demo --once --report demo.json
      tao-daemon demo --keep /tmp/demo         # and look around in it
    """
    from tao_daemon.cli.demo_display import display
    from tao_daemon.embedded.demo import DemoSettings

    with _work_dir(keep) as work_dir, display() as shown:
        settings = DemoSettings(work_dir, seed, once, time_limit, _install_seconds())

        def present(report: dict[str, Any]) -> None:
            shown.present(report, keeps_running=not once)
            if report_path:
                report_path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

        ended_by = asyncio.run(_run(settings, shown.show, present))
    if ended_by:
        click.echo("stopped; everything that the demo started has ended", err=True)
        sys.exit(128 + ended_by)


async def _run(settings: DemoSettings, show: Any, present: Any) -> int:
    """Run the demo; the number of the signal that ended it, 0 when it ended by itself."""
    from tao_daemon.embedded.demo import Demo

    received: list[int] = []
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(Demo(settings, show=show, present=present, evaluation=_evaluation).run())

    def stop(number: int) -> None:
        received.append(number)
        running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    try:
        await running
    except asyncio.CancelledError:
        if not received:
            raise
    return received[0] if received else 0


def _evaluation(data_dir: Path, number: int) -> Sequence[Mapping[str, Any]]:
    from tao_daemon.app.paths import rounds_below
    from tao_daemon.registry.round_archive import RoundArchive

    return RoundArchive(rounds_below(data_dir)).evaluation(number)


@contextmanager
def _work_dir(keep: Path | None) -> Iterator[Path]:
    """A directory for one run: the user's, or a temporary one that stays only when there is something to look into."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise click.BadParameter(f"{keep} is not empty; the demo starts from nothing", param_hint="--keep")
        yield keep.resolve()
        return
    directory = Path(tempfile.mkdtemp(prefix="tao-demo-"))
    try:
        yield directory
    except Exception:
        click.echo(f"logs and data of this run are in {directory}", err=True)
        raise
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)


def _install_seconds() -> float | None:
    try:
        return float(os.environ[_INSTALL_SECONDS])
    except (KeyError, ValueError):
        return None
