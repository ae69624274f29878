"""``runner secrets``: the encrypted store of secrets."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from agent_runner.hardening import harden
from daemon.cli.output import note, print_json
from daemon.cli.secrets_access import StoreAccess, refuse_inside_job, store_options
from daemon.cli.secrets_export import export
from daemon.cli.secrets_import import import_
from daemon.cli.secrets_init import init
from daemon.cli.secrets_passwd import passwd
from daemon.cli.secrets_set import set_
from daemon.errors import SecretNotFoundError, UsageError
from daemon.secrets.given_file import write_all
from daemon.secrets.store.names import check_path, parse_name
from daemon.secrets.store.stored_secret import StoredSecret

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def secrets() -> None:
    """Keep secrets in an encrypted store, for ${secret:path:key} in job files."""
    harden()


for _command in (init, set_, passwd, export, import_):
    secrets.add_command(_command)


@secrets.command(epilog="Example: runner secrets get npm/tokens NPM_TOKEN | npm-login")
@click.argument("path")
@click.argument("key")
@click.option("--show", is_flag=True, help="Print the value even to a terminal.")
@click.option("--raw", is_flag=True, help="Add nothing to the bytes, on a terminal neither.")
@store_options
def get(*, path: str, key: str, show: bool, raw: bool, access: StoreAccess) -> None:
    """Print one value: its bytes exactly, and no line end."""
    name = parse_name(path, key)
    refuse_inside_job(access.env)
    if sys.stdout.isatty() and not show:
        raise UsageError("not to a terminal, whose scroll-back keeps it: use a pipe, or --show")
    store, _ = access.unlock()
    secret = store.get(name)
    if sys.stdout.isatty() and not raw:
        print(_shown(secret))
        return
    write_all(sys.stdout.fileno(), secret.reveal())


@secrets.command(epilog="Example: runner secrets delete npm/tokens NPM_TOKEN")
@click.argument("path")
@click.argument("key")
@store_options
def delete(*, path: str, key: str, access: StoreAccess) -> None:
    """Remove one value."""
    name = parse_name(path, key)
    store, _ = access.unlock()
    store.delete(name)
    note(f"{name}: deleted")


@secrets.command("list", epilog="Example: runner secrets list npm/tokens")
@click.argument("path")
@JSON_OPTION
@store_options
def list_(*, path: str, as_json: bool, access: StoreAccess) -> None:
    """Print the keys of one path."""
    check_path(path)
    store, _ = access.unlock()
    keys = [name.key for name in store.names() if name.path == path]
    if not keys:
        raise SecretNotFoundError(f"the secret store has no path {path}")
    _print_names(keys, as_json=as_json)


@secrets.command("list-paths", epilog="Example: runner secrets list-paths --json")
@JSON_OPTION
@store_options
def list_paths(*, as_json: bool, access: StoreAccess) -> None:
    """Print all paths."""
    store, _ = access.unlock()
    _print_names(sorted({name.path for name in store.names()}), as_json=as_json)


def _print_names(names: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        print_json(list(names))
    else:
        for name in names:
            print(name)


def _shown(secret: StoredSecret) -> str:
    """Return a value for a terminal: control characters must not drive it."""
    text = secret.reveal_text()
    if text is None:
        raise UsageError("the value is not text: use a pipe, or --raw")
    return "".join(
        char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text
    )
