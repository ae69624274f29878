"""Which job server a command asks: the one of the state directory, or the one that a flag, the environment or the file names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemon.cli.output import note, state_of
from daemon.config import Value, environ, load
from daemon.errors import UsageError

if TYPE_CHECKING:
    from daemon.job_client.client import JobClient
    from daemon.job_client.connection import Connection, Server

FLAGS = ("server", "token_file", "tls_ca", "tls_certificate", "tls_key", "insecure")
"""The flags of ``runner`` that are settings of ``client``."""


def connect(ctx: click.Context, project: str | None = None) -> JobClient:
    """Return a client of the server that this invocation is about; ``project`` is what its flag says. Imports grpc."""
    values = _settings(ctx, {"project": project})
    find, running = _chosen(ctx, values)
    from daemon.job_client.client import JobClient  # noqa: PLC0415 - grpc is heavy

    return JobClient(find, running, project=str(values["project"].value))


def open_connection(ctx: click.Context) -> Connection:
    """Return a connection to that server, which must run. Imports grpc."""
    find, _ = _chosen(ctx, _settings(ctx, {}))
    from daemon.job_client.connection import Connection  # noqa: PLC0415

    return Connection(find())


def _settings(ctx: click.Context, flags: Mapping[str, object]) -> dict[str, Value]:
    given = ctx.find_root().params
    return load(environ(), {**flags, **{f"client.{name}": given.get(name) for name in FLAGS}})


def _chosen(
    ctx: click.Context, values: Mapping[str, Value]
) -> tuple[Callable[[], Server], Callable[[], bool]]:
    """Return what finds the server, and what tells whether it is worth waiting for.

    Raises:
        UsageError: Two servers are named, or there is no token for the one that is.
    """
    # Else gRPC writes lines of its own to standard error when TLS fails, beside the one that says why.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # noqa: TID251 - read by gRPC when it is loaded
    address = values["client.server"]
    state_dir = ctx.find_root().params.get("state_dir")
    if state_dir and address.origin == "flag":
        raise UsageError("--server and --state-dir name two job servers: leave one out")
    if not address.value or (state_dir and address.origin != "flag"):
        return _of_state_dir(ctx)
    server = _remote(values)
    return lambda: server, lambda: True


def _of_state_dir(ctx: click.Context) -> tuple[Callable[[], Server], Callable[[], bool]]:
    from daemon.job_client.connection import local_server  # noqa: PLC0415
    from daemon.local.lock import is_locked  # noqa: PLC0415

    state = state_of(ctx)
    return partial(local_server, state), partial(is_locked, state)


def _remote(values: Mapping[str, Value]) -> Server:
    from agent_runner.server_link import ServerLink  # noqa: PLC0415
    from daemon.foreground.token_file import read_token  # noqa: PLC0415
    from daemon.job_client.connection import Server  # noqa: PLC0415

    def path(name: str) -> Path | None:
        text = str(values[f"client.{name}"].value)
        return Path(text).absolute() if text else None

    link = ServerLink(
        address=str(values["client.server"].value),
        tls_ca=path("tls_ca"),
        tls_certificate=path("tls_certificate"),
        tls_key=path("tls_key"),
        insecure=values["client.insecure"].value is True,
    )
    return Server(link, read_token(path("token_file"), environ(), note))
