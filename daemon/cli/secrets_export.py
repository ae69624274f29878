"""``runner secrets export``: a copy of the store, encrypted unless that is asked for otherwise."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.output import note
from daemon.cli.secrets_access import (
    FILE,
    DiscreetCommand,
    StoreAccess,
    checked_password,
    new_password_options,
    refuse_inside_job,
    store_options,
)
from daemon.errors import UsageError
from daemon.secrets.given_file import write_given
from daemon.secrets.values import SecretValue


@click.command(cls=DiscreetCommand, epilog="Example: runner secrets export -o secrets-backup.json")
@click.option(
    "--output",
    "-o",
    type=FILE,
    default="-",
    metavar="FILE",
    help="Where to (default: standard output, if that is no terminal).",
)
@click.option("--plaintext", is_flag=True, help="Do not encrypt it.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.option("--allow-weak-password", is_flag=True, help="Take less than 8 characters.")
@new_password_options
@store_options
def export(  # noqa: PLR0913 - one per option
    *,
    output: Path,
    plaintext: bool,
    force: bool,
    allow_weak_password: bool,
    given: SecretValue | None,
    access: StoreAccess,
) -> None:
    """Write all values to a file of mode 0600, which `import` reads.

    It opens with the password of the store, or with another one by --new-password-file or --new-password-fd.
    """
    if plaintext and given is not None:
        raise UsageError("--plaintext has no password; leave the new one away")
    from daemon.secrets.store.plain_file import plain_document  # noqa: PLC0415 - only here

    password = None if given is None else checked_password(given, weak=allow_weak_password)
    if plaintext:
        refuse_inside_job(access.env)
    store, _ = access.unlock()
    content = plain_document(store.read_all()) if plaintext else store.sealed_copy(password)
    write_given(output, content, "--output", overwrite=force)
    if plaintext:
        note("warning: the export is not encrypted; delete it when it has served")
