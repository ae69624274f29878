"""``runner secrets import``: all values of another file, or none of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent_runner.secret_refs import LOCAL_PATH
from daemon.cli.output import note
from daemon.cli.secrets_access import (
    FILE,
    DiscreetCommand,
    StoreAccess,
    read_given_password,
    store_options,
)
from daemon.errors import (
    SecretExistsError,
    SecretNeededError,
    UsageError,
    WrongPasswordError,
)
from daemon.secrets.given_file import read_given
from daemon.secrets.store.names import SecretName, check_path
from daemon.secrets.store.plain_file import parse_plain
from daemon.secrets.store.sealed_file import FORMAT, MAX_FILE_BYTES, parse_sealed
from daemon.secrets.store.strict_json import parse_object
from daemon.secrets.store_password import FoundPassword
from daemon.secrets.values import SecretValue

if TYPE_CHECKING:
    from daemon.secrets.store.secret_store import SecretStore

Values = dict[SecretName, bytes]
ValuesOf = Callable[[FoundPassword], Values]
"""Gives the values to import; told the password of the store, which may be that of the file too."""


@click.command(
    "import",
    cls=DiscreetCommand,
    epilog="Example: runner secrets import --dotenv .env --path npm/tokens",
)
@click.argument("file", type=FILE, required=False)
@click.option(
    "--from-reactorcide", type=FILE, metavar="DIR", help="Read a store of the first generation."
)
@click.option("--dotenv", type=FILE, metavar="FILE", help="Read NAME=value lines.")
@click.option(
    "--path", default=LOCAL_PATH, show_default=True, help="Path of the values of a .env file."
)
@click.option("--overwrite", is_flag=True, help="Replace values that are there already.")
@click.option("--skip-existing", is_flag=True, help="Leave values that are there already.")
@click.option("--from-password-fd", type=int, metavar="N", help="Password of the other file.")
@click.option("--from-password-file", type=FILE, metavar="FILE", help="Password of the other file.")
@store_options
def import_(  # noqa: PLR0913 - one per option
    *,
    file: Path | None,
    from_reactorcide: Path | None,
    dotenv: Path | None,
    path: str,
    overwrite: bool,
    skip_existing: bool,
    from_password_fd: int | None,
    from_password_file: Path | None,
    access: StoreAccess,
) -> None:
    """Store all values of a file that `export` wrote, of a .env file or of an older store; or none."""
    if [file, from_reactorcide, dotenv].count(None) != 2:  # noqa: PLR2004 - all but one
        raise UsageError("name one thing to import: FILE, --dotenv FILE or --from-reactorcide DIR")
    if overwrite and skip_existing:
        raise UsageError("give --overwrite or --skip-existing, not both")
    check_path(path)
    other = read_given_password(from_password_fd, from_password_file, "--from-password")
    # Read before any password is asked for; what is encrypted is opened after that.
    values_of: ValuesOf
    if dotenv is not None:
        values_of = _from_dotenv(dotenv, path)
    elif from_reactorcide is not None:
        values_of = _from_first_generation(access, from_reactorcide, other)
    else:
        values_of = _from_file(access, file or Path("-"), other)
    store, found = access.unlock()
    _put(store, values_of(found), overwrite=overwrite, skip_existing=skip_existing)


def _from_dotenv(file: Path, path: str) -> ValuesOf:
    from daemon.secrets.store.dotenv import parse_dotenv  # noqa: PLC0415 - only here

    try:
        pairs = parse_dotenv(read_given(file, "--dotenv", MAX_FILE_BYTES))
    except ValueError as error:
        raise UsageError(f"{file}: {error}; nothing was imported") from None
    empty = [name for name, value in pairs.items() if not value]
    if empty:
        note(f"left out, because empty: {', '.join(empty)}")
    values = {SecretName(path, name): value.encode() for name, value in pairs.items() if value}
    return lambda _: values


def _from_first_generation(
    access: StoreAccess, folder: Path, password: SecretValue | None
) -> ValuesOf:
    from daemon.secrets.store.first_generation import FirstGenerationStore  # noqa: PLC0415

    store = FirstGenerationStore(folder)

    def values(_: FoundPassword) -> Values:
        chosen = password or _ask_other(access, str(folder))
        if chosen is None:
            raise SecretNeededError(
                f"no password for {folder}: give --from-password-file or --from-password-fd"
            )
        return store.unlock(chosen)

    return values


def _from_file(access: StoreAccess, file: Path, password: SecretValue | None) -> ValuesOf:
    """Return what another export holds, in clear text or under a password, by default that of the store."""
    data = read_given(file, "FILE", MAX_FILE_BYTES)
    try:
        document = parse_object(data)
        if document.get("format") != FORMAT:
            plain = parse_plain(document)
            return lambda _: plain
    except ValueError as error:
        raise UsageError(f"{file}: {error}; nothing was imported") from None
    sealed = parse_sealed(data, str(file))

    def values(found: FoundPassword) -> Values:
        from daemon.secrets.store.contents import parse_contents  # noqa: PLC0415
        from daemon.secrets.store.store_key import unlock  # noqa: PLC0415 - loads cryptography

        try:
            key = unlock(sealed, password or found.value, str(file))
        except WrongPasswordError:
            typed = None if password else _ask_other(access, str(file))
            if typed is None:
                raise
            key = unlock(sealed, typed, str(file))
        contents = parse_contents(key.decrypt(sealed))
        return {name: secret.reveal() for name, secret in contents.secrets.items()}

    return values


def _ask_other(access: StoreAccess, what: str) -> SecretValue | None:
    typed = access.ask(f"Password of {what}: ") if access.ask is not None else None
    return SecretValue(typed) if typed else None


def _put(store: SecretStore, values: Values, *, overwrite: bool, skip_existing: bool) -> None:
    from daemon.secrets.store.secret_store import OnConflict  # noqa: PLC0415

    conflict = OnConflict.REFUSE_OTHER_VALUE
    if overwrite or skip_existing:
        conflict = OnConflict.REPLACE if overwrite else OnConflict.SKIP
    try:
        result = store.put(values, conflict)
    except SecretExistsError as error:
        raise UsageError(f"{error}; --overwrite or --skip-existing decides") from None
    counts = {
        "imported": len(result.added),
        "replaced": len(result.replaced),
        "unchanged": len(result.unchanged),
        "skipped": len(result.skipped),
    }
    shown = [f"{count} {word}" for word, count in counts.items() if count]
    note(", ".join(shown) or "there was nothing to import")
