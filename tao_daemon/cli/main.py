"""The `tao-daemon` command. Each family is imported when it is used, so that --help is instant."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from tao_daemon import __version__
from tao_daemon.cli.exits import FAILED, MEANINGS, USAGE
from tao_daemon.domain.errors import ConfigError, TaoError


@dataclass(frozen=True, slots=True)
class Family:
    """A command of the first level, known without importing it."""

    module: str
    group: str
    summary: str


FAMILIES = {
    "run": Family("run", "Run", "Run the daemon: intake, rounds, gate, rollouts."),
    "gateway": Family("gateway", "Run", "Run the gateway that clients ask."),
    "demo": Family("demo", "Run", "See the whole loop on this machine, with a real small model."),
    "check-config": Family("check_config", "Run", "Check a config file and show its effective values."),
    "status": Family("status", "Look", "What needs you, what serves, what runs, what waits."),
    "events": Family("events", "Look", "Follow decisions and progress as they happen."),
    "wait": Family("wait", "Look", "Wait until a round or a rollout has come to a point."),
    "console": Family("console", "Look", "The address of the web console."),
    "round": Family("rounds", "Act", "List, show, compare, replay, start and cancel rounds."),
    "rollout": Family("rollout", "Act", "Follow, approve, promote, pause, abort and undo rollouts."),
    "buffer": Family("buffer", "Data", "Prompts: import, export, forget, redrive, back up, restore."),
    "adapters": Family("adapters", "Data", "List and show adapters with their lineage."),
    "audit": Family("audit", "Data", "Show, export and verify the audit log."),
    "token": Family("token", "Access", "Create, list and revoke tokens of the control API."),
    "completion": Family("completion", "Access", "Completion for bash, zsh or fish."),
}
_CODES = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())
_HELP = f"""Turn unlabelled production traffic into a better served model, continuously.

\b
Examples:
  tao-daemon demo                         # everything on this machine, nothing to set up
  tao-daemon check-config config.toml
  tao-daemon run --config config.toml
  tao-daemon status --watch
  tao-daemon rollout undo --reason "users complain"

\b
From another machine: --url URL --token env:NAME or file:PATH (or TAO_URL and TAO_TOKEN) instead of --config.

\b
Exit codes:
{_CODES}
"""


class _Families(click.Group):
    """Knows every command's name and summary without importing it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(FAMILIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in FAMILIES:
            return None
        command: click.Command = importlib.import_module(f"tao_daemon.cli.{FAMILIES[cmd_name].module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for group in dict.fromkeys(family.group for family in FAMILIES.values()):
            with formatter.section(group):
                rows = [(name, family.summary) for name, family in FAMILIES.items() if family.group == group]
                formatter.write_dl(rows, col_max=14)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=family.summary)
            for name, family in FAMILIES.items()
            if name.startswith(incomplete)
        ]


@click.group(
    cls=_Families, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="tao-daemon")
def cli() -> None:
    pass


def main() -> NoReturn:
    """Run the command; errors that a user can meet become one line each and an exit code."""
    try:
        sys.exit(cli.main(prog_name="tao-daemon", standalone_mode=True) or 0)
    except ConfigError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(USAGE)
    except TaoError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(getattr(error, "exit_code", FAILED))
