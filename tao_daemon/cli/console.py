"""`tao-daemon console`: the way into the web console."""

from __future__ import annotations

from urllib.parse import quote

import click

from tao_daemon.cli.client import ControlClient, NoPermission
from tao_daemon.cli.options import daemon_options


@click.command()
@click.option("--open", "opened", is_flag=True, help="Open it in this machine's browser.")
@daemon_options
def command(client: ControlClient, opened: bool) -> None:
    """Print the address of the web console, with a token in it. Whoever has the address has the token's rights.

    Without --token that is the local administrator's. The part after # never leaves the browser.

    \b
    Examples:
      tao-daemon console --open
      tao-daemon console --token file:reader.token           # with that token's rights only
      ssh -L 8090:localhost:8090 gpu-1                       # and then open what it printed there
    """
    token = client.token
    if token is None:
        raise NoPermission("there is no token to open the console with; run as the daemon's user, or give --token")
    who = "the local administrator's" if client.is_administrator else "the given"
    click.echo(f"with {who} token in it; do not pass it on:", err=True)
    address = f"{client.url}/console/#token={quote(token, safe='')}"
    click.echo(address)
    if opened:
        from tao_daemon.cli.browser import open_privately

        if not open_privately(address):
            click.echo("no browser could be started here; open the address yourself", err=True)
