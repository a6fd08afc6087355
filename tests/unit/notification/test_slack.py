"""Slack messages: readable, bounded, harmless."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.domain.lifecycle import TYPES
from tao_daemon.notification.slack import slack_message


def texts(message: dict[str, Any]) -> list[str]:
    """Every text that Slack shows as markdown."""
    found = [message["text"]]
    for block in message["blocks"]:
        parts = [block.get("text"), *block.get("fields", ()), *block.get("elements", ())]
        found += [part["text"] for part in parts if part and part["type"] == "mrkdwn"]
    return found


def test_it_says_what_why_who_and_the_command(example: dict[str, Any]) -> None:
    message = slack_message(example)
    assert message["blocks"][0]["text"]["text"] == "Rollout of a1 waits for your approval"
    shown = "\n".join(texts(message))
    assert 'tao-daemon rollout approve --reason "…"' in shown
    assert "mean difference +0.310" in shown
    assert "*shadow mean difference:* +0.312" in shown
    assert "shadow skipped" not in shown, "zeros say nothing"
    assert "*Why:*" not in shown, "the reason is in what is said"
    assert "41:0123456789ab" in shown
    assert "daemon · 2026-11-22T19:33:20.250Z · tao-test" in shown


def test_nobody_is_called_by_a_reason(example: dict[str, Any]) -> None:
    example["data"] |= {"reason": "<!channel> see <http://evil|here> & go", "actor": "<@U1>"}
    for text in texts(slack_message(example)):
        assert "<" not in text
    assert "&lt;!channel&gt; see &lt;http://evil|here&gt; &amp; go" in json.dumps(slack_message(example))


@given(kind=st.sampled_from(sorted(TYPES)), what=st.text(max_size=5000), reason=st.text("<&>\nx", max_size=5000))
def test_every_type_fits_whatever_is_written(kind: str, what: str, reason: str) -> None:
    event = {
        "type": f"io.tao-daemon.{kind}",
        "source": "s" * 1000,
        "time": "2026-11-22T19:33:20Z",
        "data": {
            "what": what,
            "reason": reason,
            "actor": "&" * 1000,
            "adapter": None,
            "fraction": 0.25,
            "evidence": {f"number_{n}": 1234567 + n / 2 for n in range(20)},
            "journal": {"seq": 1, "hash": "0" * 64},
        },
    }
    message = slack_message(event)
    assert len(message["blocks"][0]["text"]["text"]) <= 150
    for text in texts(message):
        assert 0 < len(text) <= 3000
        assert re.search("&(?!amp;|lt;|gt;)", text) is None, "an escape was cut in two"
    assert all(len(block.get("fields", ())) <= 10 for block in message["blocks"])
    json.dumps(message).encode()
