"""What stays on the screen: watches, waits and the stream of events, through restarts of the daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.conftest import wait_until
from tests.integration.cli.past import SECOND, environment_of

Make = Callable[..., Any]


class Lines:
    """The output of a command, as it comes."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self.seen: list[str] = []
        self._more = threading.Condition()
        assert child.stdout is not None
        threading.Thread(target=self._read, args=(child.stdout,), daemon=True).start()

    def until(self, text: str, seconds: float = 20.0, *, times: int = 1) -> list[str]:
        """Everything seen once so many lines with `text` came."""
        with self._more:
            found = self._more.wait_for(lambda: sum(text in line for line in self.seen) >= times, seconds)
            assert found, f"{text!r} did not come {times} times: {self.seen}"
            return list(self.seen)

    def _read(self, output: Any) -> None:
        for line in output:
            with self._more:
                self.seen.append(line.rstrip("\n"))
                self._more.notify_all()


@contextmanager
def piped(site: Any, *arguments: str) -> Iterator[Lines]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tao_daemon", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment_of(site), "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield Lines(child)
    finally:
        child.kill()
        child.wait(10)


def test_a_live_status_survives_a_restart(past_site: Make, in_terminal: Make) -> None:
    site = past_site()
    site.start()
    with in_terminal(site, "status", "--watch") as screen:
        screen.until("waits for approval")
        site.run("rollout", "pause", "--reason", "hold on")
        screen.until("hold on", 5)
        site.daemon.kill()
        screen.until("the daemon does not answer since")
        screen.seen = ""
        site.start()
        screen.until("is paused by")
        assert screen.end() == 0


def test_a_terminal_without_colours(past_site: Make, in_terminal: Make) -> None:
    site = past_site()
    site.start()
    with in_terminal(site, "rollout", "status", NO_COLOR="1") as screen:
        assert screen.wait() == 0
        assert "✔ staged" in screen.seen
        assert "\x1b[3" not in screen.seen
    with in_terminal(site, "rollout", "status", PYTHONIOENCODING="ascii") as screen:
        assert screen.wait() == 0
        assert "[x] staged" in screen.seen


def test_a_person_is_asked_before_everything_changes(past_site: Make, in_terminal: Make) -> None:
    site = past_site()
    site.start()
    with in_terminal(site, "rollout", "promote", "--full") as screen:
        screen.until("[y/N]")
        screen.type("n\n")
        assert screen.wait() == 1
    with in_terminal(site, "rollout", "undo", "--to", "base") as screen:
        screen.until("without any adapter? [y/N]")
        screen.type("n\n")
        assert screen.wait() == 1
    assert site.status()["incumbent"]["generation"] == 2
    with in_terminal(site, "rollout", "promote", "--full", "--yes") as screen:
        assert screen.wait() == 0
    assert site.status()["incumbent"]["adapter"] == SECOND


def test_a_watch_in_a_pipe_is_a_line_per_change(past_site: Make) -> None:
    site = past_site()
    site.start()
    with piped(site, "rollout", "status", "--watch") as lines:
        lines.until(f"{SECOND} shadow")
        site.issue("ann", "read")  # an entry of the journal wakes the watch, and changes nothing that it shows
        site.run("rollout", "promote", "--reason", "on")
        assert "canary 5%" in lines.until("canary 5%")[1], "nothing changed, so nothing was said in between"
        site.run("rollout", "abort", "--reason", "enough of it")
        lines.until("enough of it")
        assert lines.child.wait(10) == 0, "it has ended"
    assert all("\x1b" not in line for line in lines.seen)


def test_events_go_on_where_they_were(past_site: Make) -> None:
    site = past_site()
    site.start()
    with piped(site, "events", "--json", "--after", "24") as lines, piped(site, "events") as text:
        lines.until('"seq": 25')
        text.child.poll()
        site.run("rollout", "pause", "--reason", "first")
        lines.until("first")
        text.until("first")
        site.daemon.kill()
        site.start()
        site.run("rollout", "resume", "--reason", "second")
        lines.until("second")
        text.until("second")
        seen = [json.loads(line) for line in lines.seen if line.startswith("{")]
        numbers = [event["seq"] for event in seen if event["event"] == "transition"]
        assert numbers == list(range(25, 25 + len(numbers))), "none is missing, none comes twice"
        os.kill(lines.child.pid, signal.SIGINT)
        assert lines.child.wait(10) == 0


def test_waiting_through_a_restart_and_woken_at_once(past_site: Make) -> None:
    site = past_site()
    site.start()
    with piped(site, "wait", "--for", "canary", "--timeout", "60s") as lines:
        lines.until("is in shadow")
        site.daemon.kill()
        lines.until("does not answer")
        site.start()
        lines.until("is in shadow", times=2)
        began = time.monotonic()
        site.run("rollout", "promote", "--reason", "on")
        assert lines.child.wait(20) == 0
        assert time.monotonic() - began < 12, "an event woke it, not the clock"


def test_what_is_aborted_meanwhile_can_no_longer_be_reached(past_site: Make) -> None:
    site = past_site()
    site.start()
    with piped(site, "wait", "--for", "settled", "--timeout", "60s") as lines:
        lines.until("is in shadow")
        site.run("rollout", "abort", "--reason", "bad answers")
        assert lines.child.wait(10) == 1
        lines.until(f"the rollout of {SECOND} is aborted: ")
        lines.until("bad answers")
    with piped(site, "wait", "--for", "canary", "--timeout", "60s") as lines:
        lines.until("waiting for the next")
        os.kill(lines.child.pid, signal.SIGINT)
        assert lines.child.wait(10) == 130


def test_rounds_and_adapters_are_completed(past_site: Make) -> None:
    site = past_site()
    site.start()
    # A completion gives up after a second, so that no shell hangs: on a busy machine it may take more than one try.
    rounds = ["3", "2", "1"]
    wait_until(lambda: completions(site, "tao-daemon round show ") == rounds, 60, "rounds to be completed")
    wait_until(lambda: completions(site, "tao-daemon rollout undo --to ") == ["base"], 60, "base to be completed")


def completions(site: Any, words: str) -> list[str]:
    """What a shell offers after the words."""
    environment = {
        **environment_of(site),
        "_TAO_DAEMON_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split())),
    }
    command = [sys.executable, "-m", "tao_daemon"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_a_verb_whose_answer_was_lost_is_done_once(past_site: Make) -> None:
    """The daemon dies after it journaled the verb and before it answered, and somebody starts it again."""
    site = past_site()
    site.daemon.environment["TAO_KILL_AT"] = "journaled.RolloutPromoted"
    site.start()
    with piped(site, "rollout", "promote", "--reason", "on", "--json") as lines:
        site.daemon.popen.wait(20)
        site.daemon.environment.clear()
        site.start()
        assert lines.child.wait(20) == 0
        answer = json.loads("\n".join(lines.until("}")).partition("same key\n")[2])
    assert answer["replayed"] is True
    entries = json.loads(f"[{','.join(site.run('audit', 'show', '--json').stdout.splitlines())}]")
    assert [entry["event"]["type"] for entry in entries].count("RolloutPromoted") == 2, "once in the past, once now"
    assert site.status()["rollout"]["step"] == 0


def test_an_undo_whose_answer_was_lost_is_done_once(past_site: Make) -> None:
    """The daemon dies after it journaled the undo, and stays down: the command finds it in the journal."""
    site = past_site()
    site.daemon.environment["TAO_KILL_AT"] = "journaled.UndoRequested"
    site.start()
    done = site.run("rollout", "undo", "--to", "base", "--reason", "lost", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["replayed"] is True
    site.daemon.environment.clear()
    site.start()
    assert site.status()["incumbent"]["adapter"] is None
    entries = site.run("audit", "show", "--json").stdout
    assert entries.count('"lost"') == 1
