"""The console in a real browser on the real daemon: what serves is found; rollouts are approved, aborted, undone."""

from __future__ import annotations

import hashlib
import re
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright
from playwright.sync_api import TimeoutError as BrowserTimeout

import tao_daemon.control
from tao_daemon.config import load_config
from tao_daemon.embedded.processes import free_port
from tests.conftest import Process, Site
from tests.system.console_past import HOSTILE_ANSWER, HOSTILE_PROMPT, Past, write_past

pytestmark = pytest.mark.system

CHROMIUM = "/usr/bin/chromium"
VIEWS = ("#/", "#/rounds", "#/rounds/7", "#/rounds/5", "#/rollouts", "#/adapters", "#/audit", "#/rounds/3?with=1")
HOSTILE_REASON = "<b>bold</b> & <img src=x onerror=alert(1)>"
SECTIONS: dict[str, Any] = {
    "kafka": {"enabled": False},
    "round": {"min_new_prompts": 100_000},
    "gate": {"prompts": 48, "min_prompts": 40},
    "rollout": {
        "mode": "approve",
        "shadow_pairs": 64,
        "shadow_pairs_max": 96,
        "canary_fractions": [0.05, 0.5],
        "step_seconds": 3600.0,
        "bake_seconds": 3600.0,
        # No gateway counts conversations here.
        "step_conversations": 0,
        "bake_conversations": 0,
        "evaluate_seconds": 0.3,
    },
    # Nobody listens there: a rollout that has its evidence needs no model server to be approved or undone.
    "serving": {"replicas": ["http://127.0.0.1:1"]},
    "scorers": [{"name": "ticket", "type": "regex", "pattern": ".+"}],
}


class Console:
    """A page of the console, and everything in it that must not happen."""

    def __init__(self, browser: Browser, site: PastSite, **context: Any) -> None:
        self.site = site
        self.context = browser.new_context(**context)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((f"{self.site.control_url}/", "data:")):
            self.foreign.append(request.url)

    def open(self, place: str = "#/", token: str | None = None) -> Page:
        """Sign in by link, and wait for the place."""
        self.page.goto(f"{self.site.control_url}/console/#token={token or self.site.token}")
        expect(self.page.get_by_role("navigation", name="Views")).to_be_visible()
        if place != "#/":
            self.go(place)
        return self.page

    def go(self, place: str) -> None:
        self.page.evaluate("place => { location.hash = place }", place)
        self.settle()

    def settle(self) -> None:
        """Until the view of the present hash is drawn with what it reads."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")
        expect(self.page.locator("[aria-busy=true]")).to_have_count(0)

    def fill(self, reason: str, actor: str = "ann") -> None:
        dialog = self.page.get_by_role("dialog")
        field, name = dialog.get_by_label("Reason"), dialog.get_by_label("Your name")
        field.wait_for()  # nothing waits for what is merely counted
        if name.count():
            name.fill(actor)
        field.fill(reason)

    def check(self) -> None:
        assert self.complaints == []
        assert self.foreign == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; no browser of playwright's own is ever downloaded."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@dataclass
class PastSite(Site):
    """A daemon with a past: one adapter serves, the next one waits in the shadow for a person."""

    past: Past | None = None


def past_site(root: Path) -> PastSite:
    port, path = free_port(), str(root / "config.toml")
    config = {**SECTIONS, "daemon": {"data_dir": str(root / "data")}, "control": {"port": port}}
    daemon = Process(["run", "--config", path], root / "daemon.log")
    gateway = Process(["gateway", "--config", path], root / "gateway.log")
    site = PastSite(root, config, daemon, gateway, f"http://127.0.0.1:{port}", "")
    site.past = write_past(load_config(site.write_config()))
    site.start()
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PastSite]:
    """For tests that look and change nothing."""
    made = past_site(tmp_path_factory.mktemp("site"))
    yield made
    made.close()


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[PastSite]:
    """For one test that changes something."""
    made = past_site(tmp_path)
    yield made
    made.close()


@pytest.fixture
def console(browser: Browser, site: PastSite) -> Iterator[Console]:
    """To look with: wide and light. What must not happen is checked at the end."""
    yield from opened(browser, site)


@pytest.fixture
def acting(browser: Browser, own_site: PastSite) -> Iterator[Console]:
    """To change things with."""
    yield from opened(browser, own_site)


def opened(browser: Browser, site: PastSite) -> Iterator[Console]:
    console = Console(browser, site, viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield console
    console.check()
    console.context.close()


def post(site: PastSite, path: str, body: dict[str, Any], method: str = "POST") -> None:
    answer = site.ask(method, path, body, site.token)
    assert answer.status < 300, answer.raw


def entries(site: PastSite, kind: str) -> list[dict[str, Any]]:
    """The journal's entries of one kind of event."""
    found = site.get("/v1/audit?limit=1000")["entries"]
    return [entry for entry in found if entry["event"]["type"] == kind]


# Signing in


def test_a_wrong_token_is_refused_and_a_right_one_lets_in(console: Console) -> None:
    page = console.page
    page.goto(f"{console.site.control_url}/")
    field = page.get_by_label("Token")
    expect(field).to_be_focused()
    field.fill("nonsense")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("This token is not valid")
    # The browser itself notes the 401; nothing else may complain.
    assert len(console.complaints) == 1
    assert "401" in console.complaints.pop()
    field.fill(console.site.token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Serving")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    assert page.evaluate("[sessionStorage.getItem('tao.token'), localStorage.length]") == [None, 0]


def test_a_token_in_the_link_leaves_the_address_at_once(console: Console) -> None:
    page = console.open()
    assert "token" not in page.url
    assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    page.reload()
    expect(page.get_by_role("heading", name="Serving")).to_be_visible()


# At a glance


def test_what_serves_and_what_waits_is_found_at_a_glance(console: Console) -> None:
    page, past = console.open(), console.site.past
    serving = page.get_by_role("region", name="Serving")
    expect(serving).to_contain_text(past.serving)
    expect(serving).to_contain_text("h ago")
    expect(serving).to_contain_text(f"An undo goes back to{past.previous}")
    expect(serving).to_contain_text(f"The rollout of {past.waiting} waits for approval, or an abort.")
    expect(serving).to_contain_text("1 model server is not reachable: http://127.0.0.1:1")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    assert page.title() == "(1) Overview · tao-daemon"
    assert serving.get_by_role("time").first.get_attribute("title").endswith("UTC")


def test_the_evidence_of_a_rollout_reads_as_sentences(console: Console) -> None:
    rollout = console.open().get_by_role("region", name="Rollout")
    expect(rollout.get_by_role("listitem").filter(has_text="shadow").first).to_have_attribute("aria-current", "step")
    expect(rollout).to_contain_text("96 of at least 64")
    expect(rollout).to_contain_text("of 20 needed")
    expect(rollout).to_contain_text("On average the candidate scores 0.")
    expect(rollout).to_contain_text("it waits for your approval")
    guard = rollout.get_by_role("meter", name="Worse answers")
    expect(guard).to_have_attribute("aria-valuetext", "e-value 0.3 of 40: no sign")


def test_history_plots_every_round_and_marks_outcomes_by_shape(console: Console) -> None:
    page = console.open("#/rounds")
    plot = page.get_by_role("img", name="Held-out difference of each round")
    for words in (
        "Round 1 accepted: +0.",
        "Round 2 rejected: −0.",
        "Round 4 inconclusive:",
        "Round 5 failed: no measure",
    ):
        assert words in plot.get_attribute("aria-label")
    assert plot.locator("circle.dot").count() == 4
    assert plot.locator("circle.ring").count() == 1
    assert plot.locator("path.cross").count() == 2
    page.get_by_role("link", name="Round 2", exact=True).click()
    expect(page.get_by_role("heading", name="Round 2", level=1)).to_be_focused()
    expect(page.get_by_role("region", name="Verdict")).to_contain_text("The candidate failed the gate.")
    page.go_back()
    expect(page.get_by_role("heading", name="Rounds", level=1)).to_be_visible()


def test_a_round_says_why_and_shows_its_numbers(console: Console) -> None:
    page = console.open("#/rounds/7")
    verdict = page.get_by_role("region", name="Verdict")
    expect(verdict).to_contain_text("The candidate passed the gate")
    expect(verdict.get_by_role("list", name="What the gate looked at").get_by_role("listitem")).to_have_count(4)
    assert "95 % interval [+0." in verdict.get_by_role("img").first.get_attribute("aria-label")
    expect(page.get_by_role("region", name="Phases")).to_contain_text("10 min 5 s")
    rewards = page.get_by_role("region", name="Rewards in training")
    expect(rewards.get_by_role("img")).to_have_count(2)
    expect(rewards).to_contain_text("step_by_step")
    answers = page.get_by_role("region", name="Held-out answers side by side")
    expect(answers).to_contain_text("Win rate")
    first = answers.locator(".pair").first
    expect(first).to_contain_text("loss −0.")
    page.get_by_label("Order").select_option("gains")
    expect(answers.locator(".pair").first).to_contain_text("gain +0.")
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_role("navigation", name="Pages of answers")).to_contain_text("11–20 of 48")
    page.go_back()
    expect(page.get_by_role("navigation", name="Pages of answers")).to_contain_text("1–10 of 48")


def test_lineage_marks_what_serves(console: Console) -> None:
    page, past = console.open("#/adapters"), console.site.past
    serving = page.locator(".node", has_text=past.serving)
    expect(serving).to_contain_text("serving")
    expect(page.locator(".node", has_text=past.previous)).to_contain_text("an undo goes here")
    parent = page.locator("li", has=page.locator(f".node:has-text('{past.serving}')")).last
    expect(parent.locator(".node", has_text=past.waiting)).to_contain_text("shadow")


def test_the_journal_is_read_and_its_chain_checked(console: Console) -> None:
    page = console.open("#/audit")
    expect(page.get_by_role("row").filter(has_text="bob")).to_contain_text("the release freeze of the shop")
    expect(page.get_by_text("shadow pairs", exact=True)).to_have_count(0)
    page.get_by_label("Routine looks at the evidence too").check()
    expect(page.get_by_text("shadow pairs", exact=True).first).to_be_visible()
    page.get_by_role("button", name="Check the chain").click()
    expect(page.get_by_text("whole,")).to_be_visible()


# Changing things


def test_approving_tells_who_and_why_and_the_page_follows(acting: Console) -> None:
    page, past = acting.open(), acting.site.past
    page.get_by_role("group", name="What you can do").get_by_role("button", name="Approve").click()
    dialog = page.get_by_role("dialog", name="Approve the rollout")
    expect(dialog).to_contain_text(f"{past.serving} answers everything")
    expect(dialog).to_contain_text(f"{past.serving} answers 95 % of the conversations, {past.waiting} 5 %")
    expect(dialog.get_by_label("Your name")).to_be_focused()
    acting.fill("   ")
    page.keyboard.press("Enter")
    assert entries(acting.site, "RolloutApproved")[2:] == [], "no reason, no request"
    acting.fill(HOSTILE_REASON)
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text(f"approved by ann: {HOSTILE_REASON}")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    rollout = page.get_by_role("region", name="Rollout")
    expect(rollout.locator("[aria-current=step]")).to_contain_text("canary 5 %")
    entry = entries(acting.site, "RolloutApproved")[-1]
    assert (entry["actor"], entry["event"]["reason"]) == ("ann", HOSTILE_REASON)
    assert page.locator("main b, main img").count() == 0


def test_a_canary_shows_both_arms_and_what_speaks_against_it(acting: Console) -> None:
    page, site = acting.open(), acting.site
    post(site, "/v1/rollout/approve", {"actor": "ann", "reason": "test"})
    rollout = page.get_by_role("region", name="Rollout")
    expect(rollout.locator("[aria-current=step]")).to_contain_text("canary 5 %")
    arms = {
        "incumbent": {"requests": 4000, "conversations": 1900, "errors": 12, "slow": 90, "truncated": 3},
        "candidate": {"requests": 210, "conversations": 100, "errors": 4, "slow": 6, "truncated": 0},
    }
    generation = site.status()["incumbent"]["generation"]
    errors = rollout.get_by_role("row").filter(has_text="with an error")
    # A gateway reports every second or so; counts that move nothing are journaled every half minute.
    for _ in range(90):
        post(site, "/v1/gateways/g1", {"generation": generation, "splits": {str(generation): arms}}, "PUT")
        with suppress(BrowserTimeout):
            errors.wait_for(timeout=1000)
            break
    expect(errors).to_contain_text("12 0.6 %")
    expect(errors).to_contain_text("4 4 %")
    guard = rollout.get_by_role("meter", name="More errors")
    expect(guard).to_have_attribute("aria-valuetext", re.compile("e-value .* of 160: (some signs|close|no sign)"))
    expect(page.get_by_role("region", name="Serving")).to_contain_text(f"An undo goes back to{site.past.serving}")
    page.get_by_role("region", name="Serving").get_by_role("button", name="Undo").click()
    expect(page.get_by_role("dialog")).to_contain_text("gets no more conversations")
    acting.fill("errors")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("answers everything again")
    assert site.status()["incumbent"]["adapter"] == site.past.serving
    assert site.status()["rollout"]["phase"] == "aborted"


def test_an_abort_ends_the_rollout(acting: Console) -> None:
    page = acting.open("#/rollouts")
    page.get_by_role("button", name="Abort").click()
    expect(page.get_by_role("dialog")).to_contain_text("No client saw an answer of it.")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Abort")).to_be_focused()
    page.get_by_role("button", name="Abort").click()
    acting.fill("a worse tone")
    page.get_by_role("dialog").get_by_role("button", name="Abort").click()
    expect(page.get_by_role("dialog")).to_contain_text("Done:")
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(page.get_by_role("region", name="Rollout")).to_contain_text("ann: a worse tone")
    expect(page.get_by_role("button", name="Abort")).to_have_count(0)
    assert entries(acting.site, "RolloutAborted")[-1]["actor"] == "ann"


def test_pausing_and_resuming(acting: Console) -> None:
    page = acting.open()
    actions = page.get_by_role("group", name="What you can do")
    actions.get_by_role("button", name="Pause").click()
    acting.fill("lunch")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(page.get_by_role("region", name="Serving")).to_contain_text("is paused by ann: lunch.")
    actions.get_by_role("button", name="Resume").click()
    acting.fill("back")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(actions.get_by_role("button", name="Pause")).to_be_visible()


def test_an_undo_by_keyboard_alone(acting: Console) -> None:
    page, past = acting.open(), acting.site.past
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").startswith("Undo"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "focus is visible"
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Undo")
    expect(dialog).to_contain_text(f"The open rollout of {past.waiting} ends too.")
    expect(dialog).to_contain_text(f"{past.previous} answers everything")
    page.keyboard.type("ann")
    page.keyboard.press("Tab")
    page.keyboard.type("answers got worse")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("Done:")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("region", name="Serving").locator(".headline")).to_have_text(past.previous)
    expect(page.get_by_role("button", name="Undo").first).to_be_focused()
    entry = entries(acting.site, "UndoRequested")[-1]
    assert (entry["actor"], entry["event"]["reason"]) == ("ann", "answers got worse")
    assert acting.site.status()["incumbent"]["adapter"] == past.previous


def test_an_undo_to_an_adapter_of_ones_choice(acting: Console) -> None:
    page = acting.open()
    page.get_by_role("region", name="Serving").get_by_role("button", name="Undo").click()
    page.get_by_label("Go back to").select_option("base")
    expect(page.get_by_role("dialog")).to_contain_text("base model answers everything")
    acting.fill("start over")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("the base model serves")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Serving").locator(".headline")).to_have_text("base model")
    expect(page.get_by_role("region", name="Serving").get_by_role("button", name="Undo")).to_be_disabled()


def test_who_comes_second_is_told_and_changes_nothing(acting: Console) -> None:
    page = acting.open()
    page.get_by_role("group", name="What you can do").get_by_role("button", name="Promote in full").click()
    post(acting.site, "/v1/rollout/abort", {"actor": "bob", "reason": "first"})
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Something moved since this was opened.")
    acting.fill("too late")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("Refused: no rollout is open")
    acting.complaints = [text for text in acting.complaints if "409" not in text]
    dialog.get_by_role("button", name="Show it as it is").click()
    expect(dialog).to_contain_text("Cannot be done now: no rollout is open.")
    assert acting.site.status()["rollout"]["phase"] == "aborted"


def test_a_lost_answer_and_a_second_try_happen_once(acting: Console) -> None:
    page = acting.open()

    def deliver_and_lose(route: Any) -> None:
        route.fetch()
        route.abort()

    page.route("**/v1/rollout/pause", deliver_and_lose, times=1)
    page.get_by_role("group", name="What you can do").get_by_role("button", name="Pause").click()
    acting.fill("lunch")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("alert")).to_contain_text("Trying again with the same reason is safe")
    acting.complaints = [text for text in acting.complaints if "ERR_FAILED" not in text]
    dialog.get_by_role("button", name="Pause").click()
    expect(dialog).to_contain_text("Done before:")
    assert len(entries(acting.site, "RolloutPaused")) == 1


# Tokens


@pytest.mark.parametrize(
    ("scope", "enabled", "disabled"),
    [
        ("read", [], ["Approve", "Promote in full", "Pause", "Abort", "Undo", "Start a round"]),
        ("operate", ["Pause", "Abort", "Undo", "Start a round"], ["Approve", "Promote in full"]),
        ("approve", ["Approve", "Promote in full", "Pause", "Abort", "Undo", "Start a round"], []),
    ],
)
def test_buttons_follow_the_token(console: Console, scope: str, enabled: list[str], disabled: list[str]) -> None:
    page = console.open(token=console.site.issue(f"carol-{scope}", scope))
    for name in enabled:
        expect(page.get_by_role("button", name=name).first).to_be_enabled()
    for name in disabled:
        button = page.get_by_role("button", name=name).first
        expect(button).to_be_disabled()
        assert str(button.get_attribute("title")).startswith("needs scope ")
    if enabled:
        page.get_by_role("region", name="Serving").get_by_role("button", name="Undo").click()
        expect(page.get_by_role("dialog")).to_contain_text(f"Recorded as carol-{scope}.")


def test_the_api_refuses_what_a_disabled_button_would_ask(console: Console) -> None:
    page = console.open(token=console.site.issue("dave", "read"))
    ask = """async () => {
        const { change } = await import("./api.js");
        return change("/v1/rollout/approve", { reason: "anyhow" }, "k1").catch((e) => [e.status, e.message]);
    }"""
    status, message = page.evaluate(ask)
    assert status == 403
    assert "needs scope approve" in message
    console.complaints = [text for text in console.complaints if "403" not in text]


def test_a_token_that_may_not_read_is_told_what_to_ask_for(console: Console) -> None:
    page = console.open(token=console.site.issue("gw", "gateway"))
    expect(page.get_by_role("alert")).to_contain_text("has no scope read")
    expect(page.get_by_role("alert")).to_contain_text("tao-daemon token create NAME --scope read")
    console.complaints = [text for text in console.complaints if "403" not in text]


# Hostile text


def test_what_strangers_wrote_is_text(console: Console) -> None:
    page = console.open("#/rounds/7?order=arrival")
    first = page.locator(".pair").first
    expect(first.locator(".side", has_text="Candidate").locator("pre")).to_have_text(HOSTILE_ANSWER)
    expect(first.locator(".prompt pre")).to_contain_text(HOSTILE_PROMPT)
    assert page.locator("main img, main script, main a[href^='javascript']").count() == 0
    assert "pwned" not in page.title()


def test_nothing_is_inline_and_the_browser_is_told_so(site: PastSite) -> None:
    with urllib.request.urlopen(f"{site.control_url}/console/", timeout=5) as response:
        policy, body = response.headers["content-security-policy"], response.read().decode()
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "style=" not in body
    assert body.count("<script") == body.count('<script type="module" src=') == 1


def test_what_was_vendored_is_what_was_published() -> None:
    """`vendor/README.md` says which release; nobody edits a minified file unseen."""
    vendor = Path(tao_daemon.control.__file__).parent / "console" / "vendor"
    digest = hashlib.sha256((vendor / "htm-preact.js").read_bytes()).hexdigest()
    assert digest in (vendor / "README.md").read_text()


# Looks


CONTRAST = (Path(__file__).parent / "contrast.js").read_text()


@pytest.mark.parametrize(
    ("width", "scheme"), [(320, "light"), (360, "dark"), (360, "light"), (1280, "dark"), (1280, "light")]
)
def test_every_view_fits_and_can_be_read(
    browser: Browser, site: PastSite, tmp_path: Path, width: int, scheme: Any
) -> None:
    console = Console(browser, site, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = console.open()
    for place in VIEWS:
        console.go(place)
        expect(page.locator("main .panel").first).to_be_visible()
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{place} scrolls sideways by {wide} px"
        faint = page.evaluate(CONTRAST)
        assert faint == [], place
        page.screenshot(path=tmp_path / f"{VIEWS.index(place)}.png", full_page=True)
    console.check()
    console.context.close()


def test_both_themes_differ(browser: Browser, site: PastSite) -> None:
    pages = [Console(browser, site, color_scheme=scheme).open() for scheme in ("light", "dark")]
    light, dark = (page.evaluate("getComputedStyle(document.body).backgroundColor") for page in pages)
    assert light != dark
    for page in pages:
        page.context.close()


# Troubles


def test_a_daemon_that_goes_down_and_comes_back(acting: Console) -> None:
    page = acting.open()
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    acting.site.daemon.kill()
    expect(page.get_by_text("daemon down since")).to_be_visible(timeout=20_000)
    expect(page.get_by_role("region", name="Serving")).to_contain_text(acting.site.past.serving)
    expect(page.get_by_role("button", name="Undo").first).to_be_disabled()
    acting.site.daemon.start()
    expect(page.get_by_text("live", exact=True)).to_be_visible(timeout=40_000)
    expect(page.get_by_role("button", name="Undo").first).to_be_enabled()
    acting.complaints = [text for text in acting.complaints if "ERR_" not in text]


def test_before_anything_happened(browser: Browser, make_site: Callable[..., Any]) -> None:
    site = make_site("empty", kafka={"enabled": False}, serving=SECTIONS["serving"])
    site.start()
    console = Console(browser, site)
    page = console.open()
    expect(page.get_by_role("region", name="Serving").locator(".headline")).to_have_text("base model")
    expect(page.get_by_role("region", name="Rollout")).to_contain_text("There was no rollout yet.")
    expect(page.get_by_role("region", name="Rounds")).to_contain_text("No round runs: 0 of ")
    for place, words in {
        "#/rounds": "No round has ended yet.",
        "#/rollouts": "There was no rollout yet.",
        "#/adapters": "No adapter was trained yet.",
        "#/nowhere": "There is nothing here.",
    }.items():
        console.go(place)
        expect(page.get_by_text(words).first).to_be_visible()
    console.check()
    console.go("#/rounds/99")
    expect(page.get_by_role("alert")).to_contain_text("there is no round 99")
    console.context.close()


def test_the_stream_is_parsed_wherever_it_is_cut(console: Console) -> None:
    page = console.open()
    stream = ': hello\r\n\r\nid: 7\r\nevent: transition\r\ndata: {"a":\r\ndata: 1}\r\n\r\nevent: progress\ndata: 2\n\n'
    wanted = [
        {"kind": "transition", "data": '{"a":\n1}', "id": "7"},
        {"kind": "progress", "data": "2", "id": "7"},
    ]
    parse = """async ([text, cut]) => {
        const parse = (await import("./stream.js")).parser();
        return [...parse(text.slice(0, cut)), ...parse(text.slice(cut))];
    }"""
    for cut in range(len(stream) + 1):
        assert page.evaluate(parse, [stream, cut]) == wanted, cut


def test_every_dialog_has_its_words_in_every_phase(console: Console) -> None:
    page, status = console.open(), console.site.status()
    words = """async ([status, name, phase, to]) => {
        const { bodyOf, described, obstacle } = await import("./actions.js");
        const seen = { ...status, rollout: { ...status.rollout, phase, traffic_fraction: 0.25 } };
        if (obstacle(name, seen)) return null;
        return JSON.stringify([described(name, seen, to), bodyOf(name, seen, { reason: "r", actor: "a", to })]);
    }"""
    told = []
    for phase in ("staged", "shadow", "canary", "baking", "settled"):
        for name in ("approve", "promote", "promoteFull", "abort", "pause", "undo", "startRound"):
            for to in ("", "base", console.site.past.previous) if name == "undo" else ("",):
                found = page.evaluate(words, [status, name, phase, to])
                told.append(found)
                assert not re.search("undefined|null answers|NaN", found or ""), (phase, name, found)
    assert sum(found is not None for found in told) == 37


def test_numbers_never_read_as_more_than_they_are(console: Console) -> None:
    page = console.open()
    read = "async (call) => { const f = await import('./format.js'); return f[call[0]](...call[1]); }"
    for name, arguments, text in [
        ("figure", [19.99], "19.9"),
        ("figure", [78_000.0], "7.8e+4"),
        ("signed", [-0.001], "0.00"),
        ("signed", [0.125], "+0.13"),
        ("signed", [-0.5], "−0.50"),
        ("percent", [0.005], "0.5 %"),
        ("percent", [0.999], "100 %"),
        ("duration", [84.0], "1 min 24 s"),
        ("duration", [90_000.0], "1 d 1 h"),
        ("relative", [100.0, 400.0], "5 min ago"),
    ]:
        assert page.evaluate(read, [name, arguments]) == text


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_a_live_round_is_followed_to_its_rollout_and_back(
    browser: Browser, make_tiny_site: Callable[..., Any], produce: Any, random_prompts: Any
) -> None:
    """Everything is real: prompts, sampling, training, gate, shadow; a person only looks, approves and undoes."""
    calm = {"mode": "approve", "step_conversations": 0, "bake_conversations": 0, "shadow_pairs_max": 400}
    site = make_tiny_site(rollout=calm)
    site.start()
    console = Console(browser, site, viewport={"width": 1280, "height": 900})
    page = console.open()
    produce(site.config["kafka"]["topic"], random_prompts(480, seed=1))
    serving, rollout = (page.get_by_role("region", name=name) for name in ("Serving", "Rollout"))
    running = page.get_by_role("region", name="Round 1")
    bar = running.get_by_role("progressbar")
    expect(bar).to_be_visible(timeout=90_000)
    page.wait_for_function(
        "() => { const bar = document.querySelector('[role=progressbar]');"
        " return bar && bar.ariaValueNow > 0 && bar.ariaValueNow < 100 }",
        timeout=120_000,
    )
    approve = serving.get_by_role("button", name="Approve")
    expect(approve).to_be_visible(timeout=240_000)
    adapter = site.status()["rollout"]["adapter"]
    expect(rollout).to_contain_text(adapter)
    approve.click()
    console.fill("the evidence is there")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Done:")
    page.keyboard.press("Enter")
    expect(serving.locator(".headline")).to_have_text(adapter, timeout=60_000)
    serving.get_by_role("button", name="Undo").click()
    console.fill("back to the base model")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Done:")
    page.keyboard.press("Enter")
    expect(serving.locator(".headline")).to_have_text("base model")
    console.check()
    console.context.close()
