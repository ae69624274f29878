"""``runner secrets set``: stores one value, which never stands on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agent_runner.job_spec import MAX_ENV_VALUE_BYTES
from daemon.cli.output import note
from daemon.cli.secrets_access import FILE, DiscreetCommand, StoreAccess, store_options
from daemon.errors import SecretNeededError, UsageError
from daemon.secrets.given_file import read_bounded, read_given, without_line_end
from daemon.secrets.store.names import SecretName, parse_name
from daemon.secrets.store.sealed_file import DEFAULT_COST
from daemon.secrets.store.stored_secret import MAX_VALUE_BYTES


@click.command(
    "set", cls=DiscreetCommand, epilog="Example: runner secrets set npm/tokens NPM_TOKEN"
)
@click.argument("path")
@click.argument("key")
@click.option("--stdin", "from_stdin", is_flag=True, help="Read the value from standard input.")
@click.option("--file", type=FILE, metavar="FILE", help="Read the value from this file.")
@click.option("--raw", is_flag=True, help="Keep the line end that ends the input.")
@click.option("--allow-empty", is_flag=True, help="Store an empty value.")
@click.option("--no-clobber", is_flag=True, help="Refuse to replace a value.")
@click.option(
    "--upgrade-kdf", is_flag=True, help="Encrypt the store anew at the present cost of a password."
)
@store_options
def set_(  # noqa: PLR0913 - one per option
    *,
    path: str,
    key: str,
    from_stdin: bool,
    file: Path | None,
    raw: bool,
    allow_empty: bool,
    no_clobber: bool,
    upgrade_kdf: bool,
    access: StoreAccess,
) -> None:
    """Store one value: asked for, or from --stdin or --file without the line end that ends it."""
    name = parse_name(path, key)
    if from_stdin and file is not None:
        raise UsageError("give --stdin or --file, not both")
    if from_stdin and (access.options.fd == 0 or str(access.options.file) in ("-", "/dev/stdin")):
        raise UsageError("--stdin: the password comes from standard input; use --file")
    from daemon.secrets.store.secret_store import OnConflict  # noqa: PLC0415 - loads cryptography

    store, found = access.unlock()
    data = _read_value(access, name, from_stdin=from_stdin, file=file, raw=raw)
    if not data and not allow_empty:
        raise UsageError("empty value; --allow-empty stores it")
    conflict = OnConflict.REFUSE if no_clobber else OnConflict.REPLACE
    result = store.put({name: data}, conflict)
    what = "stored" if result.added else "replaced" if result.replaced else "unchanged"
    note(f"{name}: {what}, {len(data):,} byte{'' if len(data) == 1 else 's'}")
    _warn(name, data)
    if store.cost < DEFAULT_COST:
        if upgrade_kdf:
            store.change_password(found.value, DEFAULT_COST)
            note(f"the store was encrypted anew; a try of its password costs 2^{DEFAULT_COST}")
        else:
            note(
                f"notice: a try of the store's password costs 2^{store.cost}, less than the present "
                f"2^{DEFAULT_COST}; --upgrade-kdf or `runner secrets passwd` raises it"
            )


def _read_value(
    access: StoreAccess, name: SecretName, *, from_stdin: bool, file: Path | None, raw: bool
) -> bytes:
    if from_stdin or file is not None:
        if file is not None:
            data = read_given(file, "--file", MAX_VALUE_BYTES + 2)
        else:
            data = read_bounded(sys.stdin.buffer, "--stdin", MAX_VALUE_BYTES + 2)
        return data if raw else without_line_end(data)
    if access.ask is None:
        if sys.stdin.isatty():
            raise SecretNeededError(f"no value for {name}: use --stdin or --file")
        raise UsageError("standard input is no terminal: say --stdin to read the value from it")
    typed = access.ask(f"Value of {name}: ")
    if typed is None:
        raise SecretNeededError(f"no value for {name} was given; nothing was changed")
    if typed != typed.strip():
        note("warning: the value begins or ends with white space, which was kept")
    return typed.encode("utf-8", "surrogateescape")


def _warn(name: SecretName, data: bytes) -> None:
    """Say by name what a job will not be able to do with the value."""
    from sandbox.masking.masker import Masker  # noqa: PLC0415 - only where there is a value

    if b"\0" in data:
        note(f"warning: {name} holds a NUL byte, so it cannot be an environment variable")
    elif len(name.key) + len(data) > MAX_ENV_VALUE_BYTES:
        note(
            f"warning: {name} cannot be an environment variable: with its name it is longer than "
            f"{MAX_ENV_VALUE_BYTES:,} bytes"
        )
    if data and not Masker().add(str(name), data):
        note(f"warning: {name} is too short or too common a text to be masked in logs")
