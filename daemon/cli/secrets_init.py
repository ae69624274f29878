"""``runner secrets init``: a new store."""

from __future__ import annotations

from dataclasses import replace

import click

from daemon.cli.output import note
from daemon.cli.secrets_access import (
    COST,
    DiscreetCommand,
    StoreAccess,
    checked_password,
    store_options,
)
from daemon.errors import NoSecretStoreError, UsageError
from daemon.secrets.store.sealed_file import DEFAULT_COST
from daemon.secrets.store_password import find_password
from daemon.secrets.values import SecretValue


@click.command(cls=DiscreetCommand, epilog="Example: runner secrets init")
@click.option("--force", is_flag=True, help="Start anew where there is a store; the old is kept.")
@click.option("--yes", is_flag=True, help="Do not ask whether that is meant.")
@click.option(
    "--kdf-cost",
    type=COST,
    default=DEFAULT_COST,
    show_default=True,
    help="What each try of a password costs: 2^N blocks of scrypt.",
)
@click.option("--allow-weak-password", is_flag=True, help="Take less than 8 characters.")
@store_options
def init(
    *, force: bool, yes: bool, kdf_cost: int, allow_weak_password: bool, access: StoreAccess
) -> None:
    """Make the store. Its password is asked for twice, or taken from the sources of the other commands."""
    from daemon.secrets.store.secret_store import SecretStore  # noqa: PLC0415 - loads cryptography

    _check_place(access, force=force, yes=yes)
    password = _password(access, weak=allow_weak_password)
    SecretStore.create(
        access.folder,
        password,
        cost=kdf_cost,
        force=force,
        kept=lambda name: note(f"the old store is kept as {name}, under its old password"),
    )
    note(f"{access.folder.file}: made; nothing can open it without the password")
    access.keep(password)


def _check_place(access: StoreAccess, *, force: bool, yes: bool) -> None:
    """See that no store is in the way, before anything is asked or derived."""
    from daemon.secrets.store.secret_store import already_there, read_sealed  # noqa: PLC0415

    if not force:
        try:
            read_sealed(access.folder)
        except NoSecretStoreError:
            return
        raise UsageError(already_there(access.folder))
    if yes or not access.folder.exists():
        return
    if access.ask is None:
        raise UsageError(
            f"{access.folder.file} exists: say --yes to start anew (the old file is kept)"
        )
    question = f"Start anew with an empty store? {access.folder.file} is kept under another name"
    if not click.confirm(question, err=True):
        raise UsageError("nothing was changed")


def _password(access: StoreAccess, *, weak: bool) -> SecretValue:
    sources = replace(access.options, keyring=False)  # what it keeps belongs to another store
    found = find_password(access.env, access.folder.root, sources, note)
    if found is not None:
        return checked_password(found.value, weak=weak)
    return access.new_password("New password of the secret store", weak=weak)
