"""The `tao-daemon` command. Each family is imported when it is used, so that --help is instant.

Exit codes: 0 done · 1 failed · 2 wrong usage or configuration · 3 the daemon is not reachable · 4 refused.
"""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import click

from tao_daemon import __version__
from tao_daemon.cli.exits import FAILED, USAGE
from tao_daemon.domain.errors import ConfigError, TaoError

_FAMILIES = {
    "run": ("tao_daemon.cli.run", "Run the daemon: intake, rounds, gate, rollouts."),
    "gateway": ("tao_daemon.cli.gateway", "Run the gateway that clients ask."),
    "demo": ("tao_daemon.cli.demo", "See the whole loop on this machine, with a real small model."),
    "check-config": ("tao_daemon.cli.check_config", "Check a config file and show its effective values."),
    "status": ("tao_daemon.cli.status", "What serves, what runs, what waits."),
    "round": ("tao_daemon.cli.rounds", "List, show, start and cancel rounds."),
    "rollout": ("tao_daemon.cli.rollout", "Follow, approve, promote, pause, abort and undo rollouts."),
    "buffer": ("tao_daemon.cli.buffer", "Import prompts; what the buffer holds."),
    "adapters": ("tao_daemon.cli.adapters", "List adapters with their lineage."),
    "audit": ("tao_daemon.cli.audit", "Show and verify the audit log."),
}


class _Families(click.Group):
    """Knows every command's name and summary without importing it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_FAMILIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _FAMILIES:
            return None
        command: click.Command = importlib.import_module(_FAMILIES[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _FAMILIES.items()])


@click.group(cls=_Families, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tao-daemon")
def cli() -> None:
    """Turn unlabelled production traffic into a better served model, continuously.

    \b
    Examples:
      tao-daemon demo                         # everything on this machine, nothing to set up
      tao-daemon check-config config.toml
      tao-daemon run --config config.toml
      tao-daemon status --watch
      tao-daemon rollout undo --reason "users complain"

    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 daemon not reachable, 4 refused.
    """


def main() -> NoReturn:
    """Run the command; errors that a user can meet become one line each and an exit code."""
    try:
        sys.exit(cli.main(standalone_mode=True) or 0)
    except ConfigError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(USAGE)
    except TaoError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(getattr(error, "exit_code", FAILED))
