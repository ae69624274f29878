"""``runner secrets get``: prints one value."""

from __future__ import annotations

import sys

import click

from daemon.cli.secrets_access import DiscreetCommand, StoreAccess, hide_inside_job, store_options
from daemon.errors import UsageError
from daemon.secrets.given_file import write_all
from daemon.secrets.store.names import parse_name
from daemon.secrets.store.stored_secret import StoredSecret


@click.command(
    cls=DiscreetCommand, epilog="Example: runner secrets get npm/tokens NPM_TOKEN | npm-login"
)
@click.argument("path")
@click.argument("key")
@click.option("--show", is_flag=True, help="Print the value even to a terminal.")
@click.option("--raw", is_flag=True, help="Add nothing to the bytes, on a terminal neither.")
@store_options
def get(*, path: str, key: str, show: bool, raw: bool, access: StoreAccess) -> None:
    """Print one value: its bytes exactly, and no line end."""
    name = parse_name(path, key)
    if sys.stdout.isatty() and not show:
        raise UsageError("not to a terminal, whose scroll-back keeps it: use a pipe, or --show")
    store, _ = access.unlock()
    secret = store.get(name)
    hide_inside_job(access.env, secret.reveal())
    if sys.stdout.isatty() and not raw:
        print(_shown(secret))
        return
    write_all(sys.stdout.fileno(), secret.reveal())


def _shown(secret: StoredSecret) -> str:
    """Return a value for a terminal: control characters must not drive it."""
    text = secret.reveal_text()
    if text is None:
        raise UsageError("the value is not text: use a pipe, or --raw")
    return "".join(
        char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text
    )
