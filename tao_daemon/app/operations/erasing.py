"""Forgets prompts: erases them from every file of data_dir, and says which adapters learned from them.

The buffer is erased after everything that is found through it, so that the same request finds the same again until it
is done. What cannot be reached from here is said: Kafka's own copy, older backups, weights.

choose → plan on disk → fingerprints → rounds → buffer → compacting copy → journal entry → plan removed
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tao_daemon.app.operations import Progress
from tao_daemon.app.operations.erasure_plan import ErasurePlan, read_plan, remove_plan, write_plan
from tao_daemon.app.paths import adapters_path, buffer_path, existing_buffer, journal_path, rounds_path
from tao_daemon.app.settings import policy_of
from tao_daemon.buffer.copying import compact
from tao_daemon.buffer.database import open_database, transaction
from tao_daemon.buffer.erasing import Selector, claiming_rounds, erase, present_ids, select_ids
from tao_daemon.clients.failpoints import reach
from tao_daemon.clients.storage import remove_unfinished, require_room
from tao_daemon.config import Config
from tao_daemon.daemon.instance import sole_owner
from tao_daemon.daemon.state import State
from tao_daemon.daemon.supervisor import apply_event, last_state
from tao_daemon.domain.adapter import Lineage
from tao_daemon.domain.events import PromptsForgotten
from tao_daemon.domain.ports import Clock
from tao_daemon.domain.rollout import Routes
from tao_daemon.registry import erasure
from tao_daemon.registry.journal import Journal
from tao_daemon.registry.manifest import is_adapter_name
from tao_daemon.rollout.fingerprint import MIN_TOKENS


@dataclass(frozen=True, slots=True)
class ErasureRequest:
    """Who wants which prompts forgotten, and why."""

    selector: Selector | None
    """None where the identifiers are known."""
    actor: str
    reason: str


def preview(config: Config, request: ErasureRequest) -> dict[str, Any]:
    """What `forget` would do; nothing is changed."""
    with sole_owner(config.daemon.data_dir):
        return {**_told(config, _plan(config, request, _selected(config, request)), rows=None), "dry_run": True}


def forget(config: Config, request: ErasureRequest, clock: Clock, progress: Progress) -> dict[str, Any]:
    """Erase for good. An erasure that was interrupted is finished first. Raises TaoError; then run it again."""
    data_dir = config.daemon.data_dir
    with sole_owner(data_dir):
        if (unfinished := read_plan(data_dir)) is not None:
            _carry_out(config, unfinished, clock, progress)
        plan = _plan(config, request, _selected(config, request))
        if not plan.ids:
            return {**_told(config, plan, rows=0), "finished_earlier": unfinished is not None}
        _require_room(config, plan)
        write_plan(data_dir, plan)
        reach("erasure.planned")
        told = _told(config, plan, rows=0)  # while the routes and the fingerprints are as they were
        rows = _carry_out(config, plan, clock, progress)
        return {**told, "rows": rows, "finished_earlier": unfinished is not None}


def finish_erasure(config: Config, clock: Clock) -> bool:
    """Finish one that was interrupted; whether there was one. The caller owns data_dir and has nothing open."""
    plan = read_plan(config.daemon.data_dir)
    if plan is not None:
        _carry_out(config, plan, clock, lambda what, done, total: None)
    return plan is not None


def forget_again(config: Config, ids: Sequence[str], request: ErasureRequest, clock: Clock) -> int:
    """Erase what a restored backup brought back; how many prompts that were. The caller owns data_dir."""
    plan = _plan(config, request, ids)
    if plan.ids:
        write_plan(config.daemon.data_dir, plan)
        _carry_out(config, plan, clock, lambda what, done, total: None)
    return len(plan.ids)


def _selected(config: Config, request: ErasureRequest) -> list[str]:
    assert request.selector is not None
    with closing(open_database(existing_buffer(config))) as connection:
        return select_ids(connection, request.selector)


def _plan(config: Config, request: ErasureRequest, chosen: Sequence[str]) -> ErasurePlan:
    with closing(open_database(existing_buffer(config))) as connection:
        ids = present_ids(connection, chosen)
        claimed = claiming_rounds(connection, ids)
    lineages = _lineages(config)
    trained = {name: _learned_from(config, lineage, ids) for name, lineage in lineages.items()}
    probes = {
        name: erasure.probes_of(adapters_path(config) / name, _trained_on(config, lineages[name]), own)
        for name, own in trained.items()
        if own
    }
    return ErasurePlan(
        erasure=secrets.token_hex(8),
        selected_by=request.selector.by.value if request.selector else "id",
        ids=tuple(ids),
        rounds=tuple(claimed),
        adapters=_heirs(lineages, [name for name, own in trained.items() if own]),
        probes={name: digests for name, digests in probes.items() if digests},
        actor=request.actor,
        reason=request.reason,
        after=_last_seq(config),
    )


def _learned_from(config: Config, lineage: Lineage, ids: Sequence[str]) -> set[str]:
    """An adapter's prompts that an erasure concerns: those to be erased, and those sampled with one of them shown."""
    own, shown = set(ids).intersection(lineage.prompt_ids), set(ids).intersection(lineage.example_ids)
    if not shown:
        return own
    rounds = _trained_on(config, lineage)
    repeating = {name for directory in rounds for name in erasure.with_shown(directory, ids)}
    found = repeating.intersection(lineage.prompt_ids)
    # A round's table may be gone; then nobody can tell any more which prompts those were.
    told = found - own and all(erasure.has_completions(directory) for directory in rounds)
    return found if told else set(lineage.prompt_ids)


def _carry_out(config: Config, plan: ErasurePlan, clock: Clock, progress: Progress) -> int:
    """Every step, also those that were done before an interruption; rows removed from rounds."""
    data_dir, adapters = config.daemon.data_dir, adapters_path(config)
    rounds = _round_directories(config)
    total = len(plan.probes) + len(rounds) + 2
    for done, (name, digests) in enumerate(plan.probes.items()):
        progress(f"fingerprint of {name}", done, total)
        if (adapters / name).is_dir():
            erasure.take_probes(adapters / name, digests)
    for parent in (adapters, rounds_path(config)):
        remove_unfinished(parent)  # copies and deletions that a crash interrupted
    reach("erasure.fingerprints")
    rows = 0
    for done, directory in enumerate(rounds, start=len(plan.probes)):
        progress(f"round {int(directory.name)}", done, total)
        rows += erasure.erase_from_round(directory, plan.ids)
        reach("erasure.round")
    progress("buffer", total - 2, total)
    _erase_buffer(buffer_path(config), plan.ids)
    progress("journal", total - 1, total)
    _note(config, plan, clock)
    reach("erasure.journaled")
    remove_unfinished(data_dir)
    remove_plan(data_dir)
    progress("done", total, total)
    return rows


def _erase_buffer(path: Path, ids: Sequence[str]) -> None:
    with closing(open_database(path)) as connection, transaction(connection):
        erase(connection, ids)
    reach("erasure.deleted")
    remove_unfinished(path.parent)
    compact(path)
    reach("erasure.compacted")


def _note(config: Config, plan: ErasurePlan, clock: Clock) -> None:
    """One journal entry, however often the erasure was interrupted."""
    with closing(Journal(journal_path(config))) as journal:
        for entry in journal.entries(plan.after):
            if entry.event.get("erasure") == plan.erasure:
                return
        adapters = adapters_path(config)
        left = [
            (name, erasure.without_probes(adapters / name, ()).sha256)
            for name in plan.probes
            if (adapters / name).is_dir()
        ]
        event = PromptsForgotten(
            plan.erasure,
            len(plan.ids),
            plan.selected_by,
            plan.rounds,
            plan.adapters,
            tuple(left),
            plan.actor,
            plan.reason,
        )
        apply_event(journal, last_state(journal), event, policy_of(config), clock())


def _told(config: Config, plan: ErasurePlan, rows: int | None) -> dict[str, Any]:
    """What the user is told, without a word of what is erased."""
    if rows is None:
        rows = sum(erasure.rows_in_round(directory, plan.ids) for directory in _round_directories(config))
    routes = _state(config).routes
    return {
        "erasure": plan.erasure,
        "selected_by": plan.selected_by,
        "prompts": len(plan.ids),
        "rounds": list(plan.rounds),
        "rows": rows,
        "adapters": [_adapter(config, plan, name, routes) for name in plan.adapters],
        "dry_run": False,
        "finished_earlier": False,
    }


def _adapter(config: Config, plan: ErasurePlan, name: str, routes: Routes) -> dict[str, Any]:
    """An adapter that learned from the prompts: whether it serves, what is left to verify it by."""
    directory = adapters_path(config) / name
    left = erasure.without_probes(directory, plan.probes.get(name, ()))
    return {
        "name": name,
        "trained_on": len(_learned_from(config, erasure.read_manifest(directory).lineage, plan.ids)),
        "serves": _place(name, routes),
        "probes_taken": left.taken,
        "probes_left": left.left,
        "verifiable": left.tokens >= MIN_TOKENS,
    }


def _place(name: str, routes: Routes) -> str:
    if name == routes.adapter:
        return "everything"
    if name == routes.candidate:
        return "a canary"
    return "after an undo" if name == routes.previous else "nothing"


def _state(config: Config) -> State:
    if not journal_path(config).exists():
        return State()
    with closing(Journal(journal_path(config))) as journal:
        return last_state(journal)


def _last_seq(config: Config) -> int:
    if not journal_path(config).exists():
        return 0
    with closing(Journal(journal_path(config))) as journal:
        last = journal.last()
    return last.seq if last else 0


def _lineages(config: Config) -> dict[str, Lineage]:
    root = adapters_path(config)
    names = sorted(path.name for path in root.iterdir() if is_adapter_name(path.name)) if root.is_dir() else []
    return {name: erasure.read_manifest(root / name).lineage for name in names}


def _heirs(lineages: dict[str, Lineage], trained: Sequence[str]) -> tuple[str, ...]:
    """Those that were trained on the prompts, and whatever started from their weights, oldest round first."""
    found = set(trained)
    for name, lineage in sorted(lineages.items()):  # names sort by round, and a parent is of an earlier one
        if lineage.parent in found:
            found.add(name)
    return tuple(sorted(found))


def _round_directories(config: Config) -> list[Path]:
    root = rounds_path(config)
    return sorted(path for path in root.iterdir() if path.name.isdigit()) if root.is_dir() else []


def _trained_on(config: Config, lineage: Lineage) -> list[Path]:
    """Of the rounds whose completions an adapter was trained on."""
    return [rounds_path(config) / f"{number:06d}" for number in (lineage.round, *lineage.carried_from)]


def _require_room(config: Config, plan: ErasurePlan) -> None:
    """The buffer's file a second time, or the largest table of a round."""
    tables = [path.stat().st_size for path in rounds_path(config).glob("*/*") if path.is_file()]
    needed = max([buffer_path(config).stat().st_size, *tables])
    require_room(config.daemon.data_dir, needed, "a copy without the erased prompts")
