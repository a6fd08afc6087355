"""The reference of the command line, made from its own help: `python -m tao_daemon.cli.reference > docs/cli.md`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from tao_daemon.cli.exits import MEANINGS
from tao_daemon.cli.main import FAMILIES, cli

PROGRAM = "tao-daemon"
_HEAD = """# The command line

Every command with its help, its options, examples and exit codes. Made from the program's own help by
`python -m tao_daemon.cli.reference > docs/cli.md`; a test keeps it current.

Commands that ask the daemon find it in `--config` (on its own machine, with the administrator's token of `data_dir`),
or at `--url` with a token from `--token env:NAME` or `file:PATH` (also `TAO_URL` and `TAO_TOKEN`). What prints takes
`--json`. In a terminal there are colours (unless `NO_COLOR` is set) and live views; elsewhere the output is plain
text, one row a line. Verbs that change something are recorded with who and why, and happen once even when the
connection is lost and the request is sent again.
"""


def reference() -> str:
    """The whole document."""
    root = click.Context(cli, info_name=PROGRAM)
    parts = [_HEAD, _exit_codes()]
    for group in dict.fromkeys(family.group for family in FAMILIES.values()):
        parts.append(f"## {group}\n")
        for name in (name for name, family in FAMILIES.items() if family.group == group):
            command = cli.get_command(root, name)
            assert command is not None
            parts += _sections(command, click.Context(command, info_name=name, parent=root), level=3)
    return "\n".join(parts).rstrip() + "\n"


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """A command and everything below it."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, click.Context(found, info_name=name, parent=context))


def _exit_codes() -> str:
    rows = [f"| {code} | {meaning} |" for code, meaning in MEANINGS.items()]
    return "\n".join(["## Exit codes\n", "| code | means |", "|---|---|", *rows, ""])


def _sections(command: click.Command, context: click.Context, level: int) -> list[str]:
    return [
        _section(found, where, min(level + where.command_path.count(" ") - 1, 4))
        for found, where in commands(command, context)
    ]


def _section(command: click.Command, context: click.Context, level: int) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    head = [f"{'#' * level} {context.command_path}\n", f"```\n{usage}\n```\n"]
    return "\n".join([*head, *_help(command), *_options(command, context)])


def _help(command: click.Command) -> Iterator[str]:
    """Paragraphs as text; those kept as they are (`\\b`) as a heading and a block."""
    for paragraph in inspect.cleandoc(command.help or "").replace("\r", "").split("\n\n"):
        if not paragraph.startswith("\b"):
            yield paragraph + "\n"
            continue
        title, _, rest = paragraph.removeprefix("\b").lstrip("\n").partition("\n")
        yield f"{title}\n\n```\n{inspect.cleandoc(rest)}\n```\n"


def _options(command: click.Command, context: click.Context) -> list[str]:
    records = [
        record
        for param in command.get_params(context)
        if "--help" not in param.opts and (record := param.get_help_record(context))
    ]
    if not records:
        return []
    cells = [(f"`{name}`".replace("|", "\\|"), " ".join(text.split()).replace("|", "\\|")) for name, text in records]
    rows = [f"| {name} | {text} |" for name, text in cells]
    return ["| option | |", "|---|---|", *rows, ""]


if __name__ == "__main__":
    click.echo(reference(), nl=False)
