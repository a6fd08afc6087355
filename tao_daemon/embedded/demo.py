"""The demo: a broker, a model server, the daemon, a gateway and live traffic here, until an adapter has settled.

Invariants: daemon and gateway are what `tao-daemon run` and `tao-daemon gateway` start, with a config file; nothing is
scripted, every figure comes from them; whatever ends the demo, whenever it comes, ends all it started; a part that dies
ends the demo with its name and the end of its log.

model → broker → vLLM → daemon and gateway → traffic → rounds → shadow → canary → baking → settled → report → (on)
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Never, TypeVar

import aiohttp

from tao_daemon.domain.errors import TaoError
from tao_daemon.embedded.broker import EmbeddedBroker
from tao_daemon.embedded.demo_config import BASE_MODEL, TOPIC, DemoPlaces, config_text
from tao_daemon.embedded.demo_report import Promotion, build_report
from tao_daemon.embedded.demo_view import View, why_not
from tao_daemon.embedded.model import ensure_model
from tao_daemon.embedded.processes import Command, ManagedProcess, free_port
from tao_daemon.embedded.producer import LiveQuestions, Pace, TicketProducer
from tao_daemon.embedded.traffic import ANSWER_SCHEMA, tickets
from tao_daemon.embedded.vllm_server import EmbeddedVllm

T = TypeVar("T")

PACE: Final = Pace(first=320, first_rate=16.0, rate=1.0)
CLIENTS: Final = 4
QUESTION_PAUSE_SECONDS: Final = 24.0
"""Between the live questions of a client: they take the processors from the trainer."""
_BUSY_PAUSE_SECONDS = 1.0
"""While a rollout is open: its canary waits for conversations."""

_VLLM_SLOTS = 96
_REFRESH_SECONDS = 1.0
_START_SECONDS = 60.0
_ROUTE_SECONDS = 300.0
_HTTP_TIMEOUT = aiohttp.ClientTimeout(total=10.0)
_UNHEARD_LIMIT = 12
"""Status requests in a row without an answer after which the daemon counts as hung; each waits up to 10 s."""


class DemoFailed(TaoError):
    """The demo could not show what it is for."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    work_dir: Path
    seed: int
    once: bool
    time_limit_seconds: float
    """With `once`: from the start to the first promotion."""
    install_seconds: float | None = None
    """How long the installation took that came before, for the report."""


Evaluation = Callable[[Path, int], Sequence[Mapping[str, Any]]]
"""Reads the rows of a round's evaluation: (data_dir, round)."""


class Demo:
    """One run, made in an event loop. `show` gets a view at every change and every second, `present` each report."""

    def __init__(
        self,
        settings: DemoSettings,
        *,
        show: Callable[[View], None],
        present: Callable[[dict[str, Any]], None],
        evaluation: Evaluation,
    ) -> None:
        self._settings = settings
        self._show = show
        self._present = present
        self._evaluation = evaluation
        self._clock = asyncio.get_running_loop().time
        self._started = self._clock()
        self._view = View(seconds={} if settings.install_seconds is None else {"install": settings.install_seconds})

    async def run(self) -> None:
        """Until the first promotion with `once`, else until cancelled. Raises DemoFailed or a part's own TaoError."""
        limit = self._settings.time_limit_seconds if self._settings.once else None
        deadline = asyncio.timeout(limit)
        try:
            async with AsyncExitStack() as stack, deadline:
                places, server = await self._start_servers(stack)
                service = await self._start_service(stack, places)
                await self._show_rounds(stack, places, [server, *service])
        except TimeoutError:
            if not deadline.expired():
                raise
            raise DemoFailed(f"no adapter was promoted within {limit:g} s: {why_not(self._view)}") from None

    async def _start_servers(self, stack: AsyncExitStack) -> tuple[DemoPlaces, ManagedProcess]:
        """Model folder, broker and vLLM, with the process to watch."""
        work_dir = self._settings.work_dir
        loop = asyncio.get_running_loop()

        def note(text: str) -> None:
            loop.call_soon_threadsafe(lambda: self._see(note=text))

        async with self._part("model"):
            model = await in_thread(lambda: ensure_model(on_progress=note))
        async with self._part("broker"):
            broker = await stack.enter_async_context(EmbeddedBroker(log_path=work_dir / "logs" / "broker.log"))
        async with self._part("vllm_start"):
            server = EmbeddedVllm(
                model,
                served_model_name=BASE_MODEL,
                max_num_seqs=_VLLM_SLOTS,
                log_path=work_dir / "logs" / "vllm.log",
            )
            vllm = await stack.enter_async_context(server)
        assert vllm.process is not None
        places = DemoPlaces(work_dir, model, broker.bootstrap, vllm.base_url, free_port(), free_port())
        return places, vllm.process

    async def _start_service(self, stack: AsyncExitStack, places: DemoPlaces) -> list[ManagedProcess]:
        """The daemon, then a gateway, each as its own command; they are ready when this returns."""
        config = places.work_dir / "config.toml"
        config.write_text(config_text(places, seed=self._settings.seed), encoding="utf-8")
        places.schema_file.write_text(json.dumps(ANSWER_SCHEMA, indent=2) + "\n", encoding="utf-8")
        started = []
        async with self._part("daemon_start"), aiohttp.ClientSession(timeout=_HTTP_TIMEOUT) as session:
            for name, command, url in (("daemon", "run", places.control), ("gateway", "gateway", places.gateway)):
                argv = (sys.executable, "-m", "tao_daemon", command, "--config", str(config))
                log_path = places.work_dir / "logs" / f"{name}.log"
                process = await stack.enter_async_context(await ManagedProcess.start(Command(name, argv, log_path)))
                await process.wait_ready(partial(_is_ready, session, url), deadline_s=_START_SECONDS)
                started.append(process)
        return started

    async def _show_rounds(
        self, stack: AsyncExitStack, places: DemoPlaces, processes: Sequence[ManagedProcess]
    ) -> None:
        """Traffic, questions and what comes of them. Returns after the first promotion with `once`."""
        seed = self._settings.seed
        producer = TicketProducer(tickets(seed), bootstrap=places.bootstrap, topic=TOPIC, pace=PACE)
        questions = await stack.enter_async_context(
            LiveQuestions(
                tickets(seed + 1), gateway=places.gateway, clients=CLIENTS, pause_seconds=QUESTION_PAUSE_SECONDS
            )
        )
        token = (places.data_dir / "control.token").read_text()
        session = await stack.enter_async_context(
            aiohttp.ClientSession(places.control, timeout=_HTTP_TIMEOUT, headers={"Authorization": f"Bearer {token}"})
        )
        follower = _Follower(session, producer, questions, self._see)
        works = [producer.run(), questions.run(), *(_watch(process) for process in processes)]
        works.append(self._follow(follower, places))
        tasks = [asyncio.create_task(work) for work in works]
        stack.push_async_callback(_cancel, tasks)
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _follow(self, follower: _Follower, places: DemoPlaces) -> None:
        began, reported = self._clock(), 0
        while True:
            view = await follower.look()
            if "traffic_wait" not in view.seconds and (view.round or view.last_round):
                self._measured("traffic_wait", self._clock() - began)
            follower.questions.pause_seconds = _BUSY_PAUSE_SECONDS if view.open_rollout else QUESTION_PAUSE_SECONDS
            promoted = view.promoted
            if promoted and promoted["round"] > reported:
                reported = promoted["round"]
                await follower.answered_by(promoted["adapter"])
                self._present(await self._report(places, follower, reported))
                if self._settings.once:
                    return
            await asyncio.sleep(_REFRESH_SECONDS)

    async def _report(self, places: DemoPlaces, follower: _Follower, number: int) -> dict[str, Any]:
        reports = await follower.reports()
        promoted = self._view.promoted
        assert promoted and self._view.status  # noqa: PT018 - said once, for the type checker
        self._measured("rollout", promoted["since"] - promoted["started_at"])
        rows = await in_thread(lambda: self._evaluation(places.data_dir, number))
        return build_report(
            Promotion(
                rollout=await follower.rollout(promoted["adapter"]),
                round_report=next(report for report in reports if report["round"] == number),
                earlier_reports=[report for report in reports if report["round"] < number],
                evaluation=rows,
                texts=follower.producer.texts,
                seconds={**self._view.seconds, "total": self._elapsed},
                buffer=self._view.status["buffer"] or {},
                live_requests=follower.questions.requests,
                live_errors=follower.questions.errors,
                last_answer=follower.questions.last,
                gateway=places.gateway,
            )
        )

    @asynccontextmanager
    async def _part(self, name: str) -> AsyncIterator[None]:
        """Show a part of the set-up while it runs, and measure it."""
        began = self._clock()
        self._see(doing=name, note="")
        beat = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            beat.cancel()
        self._measured(name, self._clock() - began)
        self._see(doing="", note="")

    async def _beat(self) -> Never:
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            self._see()

    @property
    def _elapsed(self) -> float:
        return self._clock() - self._started

    def _measured(self, name: str, seconds: float) -> None:
        self._see(seconds={**self._view.seconds, name: seconds})

    def _see(self, **changes: Any) -> View:
        self._view = replace(self._view, elapsed=self._elapsed, **changes)
        self._show(self._view)
        return self._view


class _Follower:
    """Asks the daemon how it is going, once per look, and puts everything into one view."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        producer: TicketProducer,
        questions: LiveQuestions,
        see: Callable[..., View],
    ) -> None:
        self.producer = producer
        self.questions = questions
        self._session = session
        self._see = see
        self._unheard = 0
        self._phase: tuple[Any, ...] = ()
        self._reports: dict[int, Mapping[str, Any]] = {}

    async def look(self) -> View:
        """The view of now. A busy daemon may miss a few looks; a dead one ends the demo by its own task."""
        changed: dict[str, Any] = {}
        try:
            status = changed["status"] = await self._get("/v1/status")
            if (phase := _phase(status)) != self._phase:
                self._reports = {report["round"]: report for report in await self.reports()}
                self._phase = phase
            self._unheard = 0
        except (aiohttp.ClientError, TimeoutError) as error:
            self._unheard += 1
            if self._unheard >= _UNHEARD_LIMIT:
                raise DemoFailed(f"the daemon does not answer ({type(error).__name__}); see daemon.log") from error
        questions = self.questions
        return self._see(
            sent=self.producer.sent,
            live_requests=questions.requests,
            live_errors=questions.errors,
            live_error=questions.last_error,
            last_answer=questions.last,
            reports=self._reports,
            **changed,
        )

    async def reports(self) -> list[dict[str, Any]]:
        """Every round's report, oldest first."""
        return list((await self._get("/v1/rounds"))["rounds"])

    async def rollout(self, adapter: str) -> dict[str, Any]:
        """The history of an adapter's rollout."""
        found = (await self._get("/v1/rollouts"))["rollouts"]
        return next(dict(rollout) for rollout in found if rollout["adapter"] == adapter)

    async def answered_by(self, adapter: str) -> None:
        """Return once the gateway has answered a question with the adapter."""
        try:
            async with asyncio.timeout(_ROUTE_SECONDS):
                while True:
                    answer = await self.questions.ask_next()
                    if answer is not None and answer.version == adapter:
                        return
                    await asyncio.sleep(_REFRESH_SECONDS)
        except TimeoutError:
            raise DemoFailed(
                f"{adapter} was promoted, but the gateway did not answer with it within {_ROUTE_SECONDS:g} s; "
                "see gateway.log"
            ) from None

    async def _get(self, path: str) -> Any:
        async with self._session.get(path, raise_for_status=True) as response:
            return await response.json()


def _phase(status: Mapping[str, Any]) -> tuple[Any, ...]:
    running, last = status["round"], status["last_round"]
    return (running and (running["id"], running["phase"]), last and last["id"])


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/readyz") as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _watch(process: ManagedProcess) -> Never:
    """Never return: a part that ends on its own ends the demo."""
    status = await process.wait()
    raise DemoFailed(
        f"{process.command.name} ended with status {status}; the end of its log {process.command.log_path}:\n"
        f"{process.log_tail()}"
    )


async def in_thread(call: Callable[[], T]) -> T:
    """Like `asyncio.to_thread`, but neither cancellation nor the end of the process waits for the call."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(setter: Callable[[Any], None], value: object) -> None:
        if not result.done():
            setter(value)

    def run() -> None:
        try:
            outcome: tuple[Callable[[Any], None], object] = (result.set_result, call())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            outcome = (result.set_exception, error)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="demo", daemon=True).start()
    return await result


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
