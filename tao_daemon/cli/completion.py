"""`tao-daemon completion`: completion in the shell; what can be completed of the daemon's own names, cheaply."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tao_daemon.cli.options import CONFIG_ENV, DEFAULT_CONFIG, URL_ENV, connect
from tao_daemon.domain.errors import TaoError

PROGRAM = "tao-daemon"
_DEADLINE_SECONDS = 1.0
_INSTALL = {
    "bash": ("~/.local/share/bash-completion/completions/tao-daemon", "source <(tao-daemon completion bash)"),
    "zsh": ("a directory of $fpath, as _tao-daemon", "source <(tao-daemon completion zsh)"),
    "fish": ("~/.config/fish/completions/tao-daemon.fish", "tao-daemon completion fish | source"),
}


@click.command()
@click.argument("shell", type=click.Choice(list(_INSTALL)))
def command(shell: str) -> None:
    """Print the completion script of SHELL. It completes commands, options, rounds and adapters.

    \b
    Examples:
      source <(tao-daemon completion bash)                 # this shell only
      tao-daemon completion bash > ~/.local/share/bash-completion/completions/tao-daemon
      tao-daemon completion zsh > "${fpath[1]}/_tao-daemon"
      tao-daemon completion fish > ~/.config/fish/completions/tao-daemon.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root().command
    script = found(root, {}, PROGRAM, f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE")
    click.echo(script.source_template % script.source_vars())
    file, now = _INSTALL[shell]
    click.echo(f"# for every new shell write this to {file}; for this one: {now}", err=True)


def round_numbers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Numbers of recent rounds, the latest first."""
    rounds = _ask(ctx, "/v1/rounds", lambda found: [str(each["round"]) for each in found["rounds"]])
    return [number for number in reversed(rounds) if number.startswith(incomplete)]


def adapter_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of adapters, the latest first."""
    names = _ask(ctx, "/v1/adapters", lambda found: [each["name"] for each in found["adapters"]])
    return [name for name in reversed(names) if name.startswith(incomplete)]


def undo_targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in ["base", *adapter_names(ctx, param, "")] if name.startswith(incomplete)]


def _ask(ctx: click.Context, path: str, pick: Callable[[Any], list[str]]) -> list[str]:
    """What the daemon says within a second; nothing when it does not, for a shell must not show errors here."""
    given = ctx.params
    config = given.get("config_path") or os.environ.get(CONFIG_ENV) or DEFAULT_CONFIG
    try:
        client = connect(Path(config), given.get("url") or os.environ.get(URL_ENV), given.get("token_source"))
        return pick(client.get(path, timeout=_DEADLINE_SECONDS))
    except (TaoError, OSError, LookupError, TypeError):
        return []
