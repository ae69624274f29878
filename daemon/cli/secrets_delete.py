"""``runner secrets delete``: removes one value."""

from __future__ import annotations

import click

from daemon.cli.output import note
from daemon.cli.secrets_access import DiscreetCommand, StoreAccess, store_options
from daemon.secrets.store.names import parse_name


@click.command(cls=DiscreetCommand, epilog="Example: runner secrets delete npm/tokens NPM_TOKEN")
@click.argument("path")
@click.argument("key")
@store_options
def delete(*, path: str, key: str, access: StoreAccess) -> None:
    """Remove one value."""
    name = parse_name(path, key)
    store, _ = access.unlock()
    store.delete(name)
    note(f"{name}: deleted")
