"""``runner server``: the job server in the foreground, for staging."""

from __future__ import annotations

from typing import Any

import click

from daemon.cli.output import state_of
from daemon.config import environ


@click.command(
    epilog="Example: runner --state-dir /var/lib/runner/server server --listen 127.0.0.1:50051"
)
@click.option(
    "--listen", metavar="HOST:PORT", help="TCP address, or none for the unix socket alone."
)
@click.option("--tls-certificate", metavar="FILE", help="What the server shows to its clients.")
@click.option("--tls-key", metavar="FILE", help="The key of that.")
@click.option(
    "--tls-client-ca", metavar="FILE", help="Who must have signed the certificate of each client."
)
@click.option(
    "--insecure", is_flag=True, default=None, help="Listen in clear beyond this machine, too."
)
@click.pass_context
def server(ctx: click.Context, /, **flags: Any) -> None:
    """Run the job server in the foreground, as systemd and containers do.

    Logs JSON lines on standard error. TERM or Ctrl-C stops it in good order, a second one gives calls no
    more time, a third one leaves at once; no accepted job is lost by any of them.
    """
    from daemon.foreground.launch import run_server  # noqa: PLC0415 - the help does without
    from daemon.staging_config import server_staging  # noqa: PLC0415

    env = environ()
    config = server_staging(env, {f"server.{name}": value for name, value in flags.items()})
    run_server(state_of(ctx), config, env)
