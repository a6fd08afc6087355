"""What needs a person now, from the parts of a status. Pure: the command line and the console show what is said here.

A text begins with a common word and says what is the matter; its command, where there is one, is what settles it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tao_daemon.control.models import BufferCounts, Clients, FinishedRound, Fleet, Need, Replica, Rollout
from tao_daemon.domain.rollout import Hold

_FAILED_SHARE, _FEWEST_FAILED = 0.05, 3
_HEALTHY_INTAKE = ("starting", "consuming", "off")


def needs(
    *,
    rollout: Rollout | None,
    fleet: Fleet,
    clients: Sequence[Clients],
    buffer: BufferCounts | None,
    intake: str,
    runs: bool,
    last_round: FinishedRound | None,
) -> list[Need]:
    """The most urgent first; empty when nothing waits for anybody. `runs`: a round does."""
    found = [*_clients(clients), *_rollout(rollout, fleet), *_fleet(fleet), *_data(buffer, intake)]
    if last_round and last_round.outcome == "failed" and not runs:
        text = f"round {last_round.id} failed: {last_round.reason}"
        found.append(_problem("round_failed", text, f"tao-daemon round show {last_round.id}"))
    return found


def _clients(clients: Sequence[Clients]) -> Iterator[Need]:
    """The same measure as the alert TaoGatewayErrors, without its waiting time."""
    requests, failed = sum(each.requests for each in clients), sum(each.failed for each in clients)
    if failed < _FEWEST_FAILED or failed <= _FAILED_SHARE * requests:
        return
    by_kind = ", ".join(f"{each.kind} {each.failed} of {each.requests}" for each in clients if each.failed)
    text = f"{failed / requests:.0%} of the requests of the last minutes failed ({by_kind}); see TaoGatewayErrors"
    yield _problem("requests_failing", f"{text} in the runbook")


def _rollout(rollout: Rollout | None, fleet: Fleet) -> Iterator[Need]:
    if rollout is None:
        return
    if rollout.waits_for_approval:
        command = 'tao-daemon rollout approve --reason "why"'
        text = f"the rollout of {rollout.adapter} waits for approval, or an abort"
        yield Need(code="approval", text=text, command=command, severity="decision")
    if rollout.hold_reason is Hold.PAUSED:
        command = 'tao-daemon rollout resume --reason "why"'
        text = f"the rollout of {rollout.adapter} is paused by {rollout.paused_by}"
        yield Need(code="paused", text=text, command=command, severity="decision")
    if rollout.hold_reason is Hold.NO_GATEWAY:
        text = f"the rollout of {rollout.adapter} cannot move: no gateway reports what it counts"
        if fleet.gateways:
            token = "tao-daemon token create NAME --scope gateway"
            yield _problem("no_gateway", f"{text}; those that poll have no valid gateway.daemon_token", token)
        else:
            yield _problem("no_gateway", text, "tao-daemon gateway --config config.toml")


def _fleet(fleet: Fleet) -> Iterator[Need]:
    # A server that was not looked at yet is neither reached nor in trouble.
    away = [replica for replica in fleet.replicas if not replica.reachable and replica.problems]
    if away:
        yield _problem("replica_unreachable", f"{_servers(away)} not reachable: {_named(away)}")
    lost = {replica.url for replica in away}
    known = {replica.url: replica for replica in fleet.replicas}
    unready = [
        known.get(url, Replica(url=url, reachable=True, ready=False, problems=[]))
        for url in fleet.unready
        if url not in lost
    ]
    if unready:
        healing = "it gets no adapter's requests and is healed; if that lasts, look at its log"
        yield _problem("replica_unready", f"{_servers(unready)} not ready for adapters: {_named(unready)}; {healing}")


def _data(buffer: BufferCounts | None, intake: str) -> Iterator[Need]:
    if buffer is None:
        yield _problem("buffer_silent", "the buffer does not answer; see the daemon's log, and free disk space")
    if intake not in _HEALTHY_INTAKE:
        text = f"intake is {intake.replace('_', ' ')}; nothing is lost, Kafka keeps it for its retention"
        yield _problem("intake_interrupted", text)


def _problem(code: str, text: str, command: str | None = None) -> Need:
    return Need(code=code, text=text, command=command, severity="problem")


def _servers(replicas: Sequence[Replica]) -> str:
    return "1 model server is" if len(replicas) == 1 else f"{len(replicas)} model servers are"


def _named(replicas: Sequence[Replica]) -> str:
    """Each with its problems, if it has any."""
    return ", ".join(
        f"{replica.url} ({'; '.join(replica.problems)})" if replica.problems else replica.url for replica in replicas
    )
