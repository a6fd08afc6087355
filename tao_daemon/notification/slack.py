"""A CloudEvent as a message for people, in Slack's format (Mattermost and others read it too). Pure.

What happened, why, on which numbers, who did it, and the command that acts on it. Bounded in length, and escaped, so
that no reason of anybody's becomes a mention or a link.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from tao_daemon.notification.cloud_event import CloudEvent, short_type

_HEADER, _PART, _SHORT = 150, 1400, 300
"""Characters: Slack takes 150 in a header and 3000 in a section, which holds two parts here."""
_MAX_FIELDS = 10

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}

_TITLES = {
    "daemon.started": "tao-daemon started",
    "daemon.restored": "tao-daemon was restored from a backup",
    "round.started": "Round {round} started",
    "round.accepted": "Round {round}: candidate accepted",
    "round.rejected": "Round {round}: candidate rejected",
    "round.inconclusive": "Round {round}: inconclusive",
    "round.failed": "Round {round} failed",
    "round.cancelled": "Round {round} cancelled",
    "rollout.staged": "Rollout of {adapter}: staged",
    "rollout.shadow": "Rollout of {adapter}: shadow",
    "rollout.waiting_for_approval": "Rollout of {adapter} waits for your approval",
    "rollout.approved": "Rollout of {adapter} approved",
    "rollout.canary": "Rollout of {adapter}: canary, {fraction:.0%} of the conversations",
    "rollout.baking": "Rollout of {adapter}: it answers everything, watched",
    "rollout.settled": "Rollout of {adapter}: settled",
    "rollout.aborted": "Rollout of {adapter} aborted",
    "rollout.rolled_back": "Rollout of {adapter} rolled back",
    "rollout.superseded": "Rollout of {adapter} superseded",
    "rollout.paused": "Rollout of {adapter} paused",
    "rollout.resumed": "Rollout of {adapter} resumed",
    "undo.loading": "Undo: {to} is being loaded",
    "undo.done": "Undone: {adapter}",
    "undo.failed": "Undo failed: {to} cannot serve",
    "replica.drifted": "Model server {replica} drifted",
    "replica.healed": "Model server {replica} healed",
    "adapter.unservable": "Adapter {adapter} cannot be loaded",
    "adapter.deleted": "Adapter {adapter} deleted",
    "prompts.forgotten": "Prompts forgotten",
    "token.issued": "Token {name} issued",
    "token.revoked": "Token {name} revoked",
}

_REASON = '--reason "…"'
_COMMANDS = {
    "round.rejected": "tao-daemon round show {round}",
    "round.inconclusive": "tao-daemon round show {round}",
    "round.failed": "tao-daemon round show {round}",
    "rollout.waiting_for_approval": f"tao-daemon rollout approve {_REASON}` or `tao-daemon rollout abort {_REASON}",
    "rollout.canary": f"tao-daemon rollout pause {_REASON}` or `tao-daemon rollout abort {_REASON}",
    "rollout.baking": f"tao-daemon rollout undo {_REASON}",
    "rollout.settled": f"tao-daemon rollout undo {_REASON}",
    "rollout.paused": f"tao-daemon rollout resume {_REASON}",
    "rollout.aborted": "tao-daemon rollout history",
    "rollout.rolled_back": "tao-daemon rollout history",
    "replica.drifted": "tao-daemon rollout status",
}


def slack_message(event: CloudEvent) -> dict[str, Any]:
    """The body of a POST to an incoming webhook."""
    kind, data = short_type(event), event["data"]
    title = _TITLES.get(kind, kind).format_map(_Named({"adapter": "the base model", "to": "the base model"}, data))
    what, reason = str(data.get("what", "")), str(data.get("reason", ""))
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _cut(title, _HEADER), "emoji": False}},
    ]
    why = "" if not reason or reason in what else f"\n*Why:* {_escaped(reason, _PART)}"
    text = _escaped(what, _PART) + why
    if text:
        blocks.append({"type": "section", "text": _markdown(text)})
    if fields := _fields(data.get("evidence") or {}):
        blocks.append({"type": "section", "fields": fields})
    if command := _COMMANDS.get(kind, "").format_map(_Named({}, data)):
        blocks.append({"type": "section", "text": _markdown(f"`{_escaped(command, _PART)}`")})
    blocks.append({"type": "context", "elements": [_markdown(_signed(event))]})
    return {"text": f"{_escaped(title, _SHORT)}: {_escaped(what, _SHORT)}", "blocks": blocks}


class _Named(dict[str, Any]):
    """Values for a format: those of the data, else the defaults, else nothing."""

    def __init__(self, defaults: dict[str, Any], data: Any) -> None:
        super().__init__({**defaults, **{name: value for name, value in data.items() if value is not None}})

    def __missing__(self, name: str) -> str:
        return "?"


def _fields(evidence: dict[str, float]) -> list[dict[str, str]]:
    """The numbers that are not 0, rounded."""
    told = [(name, value) for name, value in evidence.items() if value][:_MAX_FIELDS]
    return [_markdown(f"*{name.replace('_', ' ')}:* {_figure(value)}") for name, value in told]


def _signed(event: CloudEvent) -> str:
    data = event["data"]
    head = data["journal"]
    who = _escaped(str(data.get("actor", "")), _SHORT)
    source = _escaped(str(event["source"]), _SHORT)
    return f"{who} · {event['time']} · {source} · journal {head['seq']}:{head['hash'][:12]}"


def _markdown(text: str) -> dict[str, str]:
    return {"type": "mrkdwn", "text": text}


def _figure(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:+.3g}"


def _escaped(text: str, longest: int) -> str:
    """Not longer than `longest` when escaped, and no escape is cut in two."""
    pieces = [_ESCAPES.get(each, each) for each in text]
    if sum(map(len, pieces)) <= longest:
        return "".join(pieces)
    ends = accumulate(map(len, pieces))
    return "".join(piece for piece, end in zip(pieces, ends, strict=True) if end < longest) + "…"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
