"""The commands as a whole: help, the reference, what needs no daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tao_daemon.cli.main import FAMILIES, cli
from tao_daemon.cli.options import resolve_token
from tao_daemon.cli.reference import PROGRAM, commands, reference
from tao_daemon.domain.errors import ConfigError, JournalError

ROOT = Path(__file__).parents[3]


def every_command() -> Iterator[tuple[str, click.Command]]:
    for command, context in commands(cli, click.Context(cli, info_name=PROGRAM)):
        yield context.command_path, command


EVERY = dict(every_command())


def test_the_committed_reference_is_current() -> None:
    """Make it with `python -m tao_daemon.cli.reference > docs/cli.md`."""
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference()


@pytest.mark.parametrize("path", EVERY)
def test_every_help_has_an_example_and_fits(path: str) -> None:
    text = CliRunner().invoke(cli, [*path.split()[1:], "--help"], terminal_width=100).output
    assert "Example" in text
    assert f"tao-daemon {' '.join(path.split()[1:])}".strip() in text
    assert "\x08" not in text


@pytest.mark.parametrize("family", ["round", "rollout", "buffer", "adapters", "audit", "token"])
def test_summaries_are_whole(family: str) -> None:
    text = CliRunner().invoke(cli, [family, "--help"], terminal_width=100).output
    assert not [line for line in text.partition("Commands:")[2].splitlines() if line.endswith("...")]


def test_the_first_level_is_grouped() -> None:
    text = CliRunner().invoke(cli, ["--help"]).output
    places = [text.index(f"\n{group}:") for group in ("Run", "Look", "Act", "Data", "Access")]
    assert places == sorted(places)
    assert all(f"  {name} " in text for name in FAMILIES)
    assert "130  interrupted" in text


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from tao_daemon.cli.main import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('pydantic', 'rich', 'duckdb', 'fastapi', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_past_is_read_without_the_server(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'[daemon]\ndata_dir = "{tmp_path}"\n[control]\nport = 9\n')
    script = (
        "import sys; from tao_daemon.cli.main import cli\n"
        "try: cli(['round', 'list', '--json', '--config', sys.argv[1]])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('fastapi', 'starlette', 'torch') if name in sys.modules])"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "config.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]
    assert "the daemon is down" in done.stderr


BROWSER = """#!/bin/sh
echo "$@" > "$0.arguments"
page=$(echo "$1" | sed 's,^file://,,')
stat -c %a "$page" "$(dirname "$page")" > "$0.modes"
cat "$page" > "$0.page"
echo "$page" > "$0.path"
"""


def test_the_console_opens_without_its_token_in_the_list_of_processes(tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(BROWSER)
    browser.chmod(0o755)
    script = (
        "from tao_daemon.cli import browser, main\n"
        "browser.READING_SECONDS = 0.0\n"
        "main.cli(['console', '--open', '--url', 'http://127.0.0.1:9'])"
    )
    environment = {**os.environ, "BROWSER": f"{browser} %s", "TAO_TOKEN": "s&cret"}
    subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    seen = {name: (tmp_path / f"browser.{name}").read_text() for name in ("arguments", "modes", "page", "path")}
    assert "cret" not in seen["arguments"]
    assert seen["modes"].split() == ["600", "700"]
    assert 'content="0; url=http://127.0.0.1:9/console/#token=s%26cret"' in seen["page"]
    assert not Path(seen["path"].strip()).parent.exists()


@pytest.mark.parametrize("option", ["--subject", "--tenant", "--conversation", "--prompt-id"])
def test_a_reason_may_not_keep_what_is_erased(tmp_path: Path, option: str) -> None:
    (tmp_path / "config.toml").write_text(f'[daemon]\ndata_dir = "{tmp_path}"\n')
    common = ["buffer", "forget", "--config", str(tmp_path / "config.toml"), option, "Ada@Example.org"]
    refused = CliRunner().invoke(cli, [*common, "--yes", "--reason", "ada@example.ORG asked for it"])
    assert refused.exit_code == 2
    assert f"the value of {option}" in refused.stderr
    assert "ada@" not in refused.stderr.lower()
    assert list(tmp_path.iterdir()) == [tmp_path / "config.toml"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell])
    assert "_TAO_DAEMON_COMPLETE" in result.stdout
    assert "this one:" in result.stderr


def test_the_bash_script_completes(tmp_path: Path) -> None:
    """In a real bash, with the program on the PATH."""
    program = tmp_path / "tao-daemon"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tao_daemon "$@"\n')
    program.chmod(0o755)
    script = """
        source <(tao-daemon completion bash 2>/dev/null)
        try() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _tao_daemon_completion tao-daemon
            echo "${COMPREPLY[@]}"
        }
        try tao-daemon ro
        try tao-daemon rollout p
        try tao-daemon wait --for s
        try tao-daemon rollout undo --to b
        try tao-daemon round show 1
    """
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TAO_URL": "http://127.0.0.1:9"}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == ["round rollout", "pause promote", "shadow settled", "base", ""]
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr


def test_tokens_are_named_never_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MINE", " secret\n")
    (tmp_path / "t").write_text("from file\n")
    assert resolve_token("env:MINE") == "secret"
    assert resolve_token(f"file:{tmp_path / 't'}") == "from file"
    for wrong in ("tao_verysecret", "env:", "env:NOT_THERE", "file:/not/there"):
        with pytest.raises(ConfigError) as raised:
            resolve_token(wrong)
        assert "verysecret" not in str(raised.value)


def test_a_token_over_plain_http_is_warned_about() -> None:
    environment = {"TAO_URL": "http://192.0.2.1:1", "TAO_TOKEN": "t"}
    result = CliRunner().invoke(cli, ["console"], env=environment)
    assert "192.0.2.1 unencrypted" in result.stderr
    assert result.stdout == "http://192.0.2.1:1/console/#token=t\n"
    assert "administrator" not in result.stderr


def test_wrong_usage_is_two() -> None:
    for arguments in (
        ["wait"],
        ["wait", "--for", "tea"],
        ["round", "show", "x"],
        ["token", "create", "a"],
        ["nothing"],
    ):
        assert CliRunner().invoke(cli, arguments).exit_code == 2, arguments


def test_an_undo_needs_no_secret_and_makes_no_journal(tmp_path: Path) -> None:
    """The wrong data_dir, in a shell without the daemon's environment."""
    config = tmp_path / "config.toml"
    config.write_text(f"""
        [daemon]
        data_dir = "{tmp_path / "elsewhere"}"
        [control]
        port = 1
        [serving]
        api_key = "env:TAO_NO_SUCH_VARIABLE"
    """)
    done = CliRunner().invoke(cli, ["rollout", "undo", "--config", str(config)])
    assert isinstance(done.exception, JournalError)
    assert "there is no journal at" in str(done.exception)
    assert "is daemon.data_dir the one the daemon uses?" in str(done.exception)
    assert [*tmp_path.iterdir()] == [config]
