"""``runner secrets passwd``: another password for the same values."""

from __future__ import annotations

import click

from daemon.cli.output import note
from daemon.cli.secrets_access import (
    COST,
    DiscreetCommand,
    StoreAccess,
    checked_password,
    new_password_options,
    store_options,
)
from daemon.errors import UsageError
from daemon.secrets.values import SecretValue


@click.command(cls=DiscreetCommand, epilog="Example: runner secrets passwd")
@click.option("--kdf-cost", type=COST, help="What each try of it costs: 2^N blocks of scrypt.")
@click.option(
    "--upgrade-kdf", is_flag=True, help="Keep the password; only encrypt anew at the present cost."
)
@click.option("--allow-weak-password", is_flag=True, help="Take less than 8 characters.")
@new_password_options
@store_options
def passwd(
    *,
    kdf_cost: int | None,
    upgrade_kdf: bool,
    allow_weak_password: bool,
    given: SecretValue | None,
    access: StoreAccess,
) -> None:
    """Change the password: a new salt, and everything encrypted anew."""
    if upgrade_kdf and given is not None:
        raise UsageError("--upgrade-kdf keeps the password; leave the new one away")
    store, found = access.unlock()
    if upgrade_kdf:
        password = found.value
    elif given is not None:
        password = checked_password(given, weak=allow_weak_password)
    else:
        password = access.new_password("New password", weak=allow_weak_password)
    store.change_password(password, kdf_cost)
    note(f"{access.folder.file}: encrypted anew; a try of its password costs 2^{store.cost}")
    if not upgrade_kdf:
        note("old copies of the file (backups, exports) still open with the old password")
        access.keep(password)
