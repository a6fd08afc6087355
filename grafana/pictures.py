"""Draws every dashboard on live Prometheus data and writes a PNG of each.

    python -m grafana.pictures --prometheus http://127.0.0.1:9090 --minutes 15
    python -m grafana.pictures --scrape tao-daemon=127.0.0.1:8090 --scrape tao-gateway=127.0.0.1:8080 --minutes 10

The second form starts a Prometheus of its own (Debian's), scrapes for that long or until Ctrl-C, then draws.
Needs node and npm (20 or newer) and Chromium. The panels are Grafana's own (npm `@grafana/ui`); what is around them is
this project's preview, so a picture shows what a dashboard says and not what Grafana looks like.

npm install, vite build (once) → serve the preview and the Prometheus on one origin → a picture per dashboard
"""

from __future__ import annotations

import argparse
import asyncio
import io
import signal
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from aiohttp import web
from PIL import Image

from grafana.browser import open_browser
from grafana.scraping import configuration, scraping

HERE = Path(__file__).parent
PREVIEW = HERE / "preview"
DASHBOARDS = HERE / "dashboards"
_COLOURS = 256
"""Of a picture's palette: enough for lines on a dark ground, a third of the bytes of true colour."""


def build_preview() -> Path:
    """The folder with the built page; built only when its sources changed."""
    sources = [*PREVIEW.glob("src/*"), PREVIEW / "index.html", PREVIEW / "package-lock.json"]
    built = PREVIEW / "dist" / "index.html"
    if not (PREVIEW / "node_modules").exists():
        # The lock is kept to; `npm ci` would refuse it where a registry lacks packages of other platforms.
        subprocess.run(["npm", "install", "--no-save", "--no-audit", "--no-fund"], cwd=PREVIEW, check=True, timeout=600)
    if not built.exists() or built.stat().st_mtime < max(path.stat().st_mtime for path in sources):
        subprocess.run(["npm", "run", "build"], cwd=PREVIEW, check=True, timeout=600)
    return built.parent


@asynccontextmanager
async def served(page: Path, dashboards: Path, prometheus: str) -> AsyncIterator[str]:
    """The page, the dashboards and the Prometheus below one address, which a browser's same-origin rule asks for."""

    async def query(request: web.Request) -> web.Response:
        url = f"{prometheus.rstrip('/')}/{request.match_info['path']}"
        async with session.get(url, params=request.query) as answer:
            return web.Response(body=await answer.read(), status=answer.status, content_type="application/json")

    async def index(_: web.Request) -> web.FileResponse:
        return web.FileResponse(page / "index.html")

    app = web.Application()
    app.router.add_get("/", index)
    app.router.add_get("/prometheus/{path:.*}", query)
    app.router.add_static("/dashboards", dashboards)
    app.router.add_static("/assets", page / "assets")
    runner = web.AppRunner(app, access_log=None)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            assert site._server is not None
            port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()


def compressed(png: bytes) -> bytes:
    """The same picture with a palette."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    # Maximum coverage keeps a colour that few pixels have, such as a thin line's.
    picture = picture.quantize(_COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


async def draw(prometheus: str, names: Sequence[str], out: Path, span: tuple[float, float], rate: str) -> None:
    """Write `out`/<name>.png for each dashboard, from data between two Unix times."""
    out.mkdir(parents=True, exist_ok=True)
    page = await asyncio.to_thread(build_preview)
    async with served(page, DASHBOARDS, prometheus) as address, open_browser() as browser:
        for name in names:
            asked = {"dashboard": name, "from": f"{span[0]:.0f}", "to": f"{span[1]:.0f}", "rate": rate}
            url = f"{address}/?{urllib.parse.urlencode(asked)}"
            picture, empty = await browser.picture(url, 1600, 60.0)
            png = compressed(picture)
            (out / f"{name}.png").write_bytes(png)
            print(
                f"{out / name}.png {len(png) / 1000:.0f} kB", *(f"  without data: {title}" for title in empty), sep="\n"
            )


async def scrape_and_draw(asked: argparse.Namespace) -> None:
    """Scrape until the time is over or somebody interrupts; then draw what was scraped."""
    targets: dict[str, list[str]] = {}
    for pair in asked.scrape:
        job, _, address = pair.partition("=")
        targets.setdefault(job, []).append(address)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    with tempfile.TemporaryDirectory() as folder:
        async with scraping(Path(folder), configuration(targets)) as prometheus:
            started = _now()
            print(f"{prometheus} scrapes {', '.join(asked.scrape)} for {asked.minutes:g} minutes; Ctrl-C draws at once")
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 60 * asked.minutes)
            await draw(prometheus, asked.only, asked.out, (started, _now()), asked.rate)


def _now() -> float:
    return time.time()


def main() -> None:
    every = sorted(path.stem for path in DASHBOARDS.glob("*.json"))
    parser = argparse.ArgumentParser(prog="python -m grafana.pictures", description="Pictures of the dashboards.")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="base URL (default %(default)s)")
    parser.add_argument(
        "--scrape", metavar="JOB=HOST:PORT", action="append", help="start a Prometheus for this target; may be repeated"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), help="folder (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=15.0, help="how much time is drawn (default %(default)s)")
    parser.add_argument("--until", type=float, help="Unix time of the right edge (default now)")
    parser.add_argument("--rate", default="30s", help="$__rate_interval (default %(default)s)")
    parser.add_argument("--only", nargs="*", choices=every, default=every, help="dashboards (default all)")
    asked = parser.parse_args()
    if asked.scrape:
        asyncio.run(scrape_and_draw(asked))
        return
    until = asked.until or _now()
    asyncio.run(draw(asked.prometheus, asked.only, asked.out, (until - 60 * asked.minutes, until), asked.rate))


if __name__ == "__main__":
    main()
