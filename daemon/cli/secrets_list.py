"""``runner secrets list`` and ``list-paths``: names, never values or anything of them."""

from __future__ import annotations

from collections.abc import Iterable

import click

from daemon.cli.output import print_json
from daemon.cli.secrets_access import DiscreetCommand, StoreAccess, store_options
from daemon.errors import SecretNotFoundError
from daemon.secrets.store.names import check_path

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("list", cls=DiscreetCommand, epilog="Example: runner secrets list npm/tokens")
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


@click.command(
    "list-paths", cls=DiscreetCommand, epilog="Example: runner secrets list-paths --json"
)
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
