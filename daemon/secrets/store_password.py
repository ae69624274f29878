"""Where the password of the secret store comes from.

In this order, and the first that is there counts: ``--password-fd``, ``--password-file``, ``RUNNER_SECRETS_PASSWORD``, the keyring
(only by choice), the person at the terminal. Each but the last is found without asking; a wrong one is not tried again.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from daemon.errors import KeyringUnusableError, SecretNeededError, UsageError
from daemon.secrets.given_file import open_given, read_bounded, without_line_end
from daemon.secrets.values import SecretValue

VARIABLE = "RUNNER_SECRETS_PASSWORD"
KEYRING_SERVICE = "runner-secrets"
_MAX_PASSWORD_BYTES = 64 << 10
_MAX_DESCRIPTOR = 2**31 - 1

Ask = Callable[[str], str | None]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordOptions:
    """What the command line and the configuration say about the password."""

    fd: int | None = None
    file: Path | None = None
    keyring: bool = False
    """Whether the person has chosen to keep it in the keyring."""


@dataclass(frozen=True, slots=True)
class FoundPassword:
    """A password and where it was: ``descriptor``, ``file``, ``environment``, ``keyring`` or ``terminal``."""

    value: SecretValue
    source: str


def find_password(
    env: Mapping[str, str],
    store_dir: Path,
    options: PasswordOptions,
    say: Say,
    ask: Ask | None = None,
) -> FoundPassword | None:
    """Return the password from the first source that has one; None if none has.

    Called once per run: a descriptor can be read only once.

    Args:
        env: The caller's environment; an empty variable counts as unset.
        store_dir: Folder of the store, by which the keyring knows it.
        options: Which sources were chosen.
        say: Prints one line for the person; never gets a password.
        ask: The prompt; None where nobody can be asked.

    Raises:
        UsageError: A source that was chosen cannot be read, or holds no password.
        Interrupted: Ctrl-C at the prompt.
    """
    if options.fd is not None and options.file is not None:
        raise UsageError("give --password-fd or --password-file, not both")
    if options.fd is not None:
        return FoundPassword(read_password_fd(options.fd, "--password-fd"), "descriptor")
    if options.file is not None:
        return FoundPassword(read_password_file(options.file, "--password-file", say), "file")
    if env.get(VARIABLE):
        return FoundPassword(SecretValue(env[VARIABLE]), "environment")
    if options.keyring and (kept := _from_keyring(store_dir, say)) is not None:
        return FoundPassword(kept, "keyring")
    return None if ask is None else ask_password(store_dir, ask)


def ask_password(store_dir: Path, ask: Ask) -> FoundPassword | None:
    """Return what the person types, which may be nothing; None for the end of input.

    Raises:
        Interrupted: Ctrl-C.
    """
    typed = ask(f"Password of the secret store in {store_dir}: ")
    return None if typed is None else FoundPassword(SecretValue(typed), "terminal")


def needed() -> SecretNeededError:
    """Return the error for a store that nothing opens."""
    return SecretNeededError(
        f"no password for the secret store: set {VARIABLE}, give --password-file or --password-fd, "
        "or run this in a terminal, which asks for it"
    )


def read_password_fd(fd: int, option: str) -> SecretValue:
    """Return the password that a descriptor of this process holds, and close it.

    Raises:
        UsageError: It is no descriptor that can be read, or holds no password.
    """
    if not 0 <= fd <= _MAX_DESCRIPTOR:
        raise UsageError(f"{option} {fd}: expected the number of a descriptor, such as 3")
    try:
        with os.fdopen(fd, "rb") as pipe:
            return _password(pipe, f"{option} {fd}")
    except OSError as error:
        raise UsageError(f"{option} {fd}: {error.strerror}") from None


def read_password_file(path: Path, option: str, say: Say) -> SecretValue:
    """Return the password that a file holds; warns when others can read it.

    Raises:
        UsageError: It cannot be read, or holds no password.
    """
    with open_given(path, option) as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
            say(f"warning: {path} can be read by others; `chmod 600` it")
        return _password(file, f"{option} {path}")


def keep_in_keyring(store_dir: Path, password: SecretValue) -> str:
    """Keep the password of a store in the keyring; return which backend has it.

    Raises:
        KeyringUnusableError: It was not kept.
    """
    from daemon.secrets import os_keyring  # noqa: PLC0415 - only by choice

    return os_keyring.save(KEYRING_SERVICE, keyring_name(store_dir), password.reveal())


def keyring_name(store_dir: Path) -> str:
    """Return under which name the keyring keeps the password of a store."""
    return hashlib.sha256(os.fsencode(store_dir)).hexdigest()[:16]


def _from_keyring(store_dir: Path, say: Say) -> SecretValue | None:
    from daemon.secrets import os_keyring  # noqa: PLC0415 - only by choice

    try:
        kept = os_keyring.load(KEYRING_SERVICE, keyring_name(store_dir))
    except KeyringUnusableError as error:
        say(f"keyring: {error}; going on without it")
        return None
    return SecretValue(kept) if kept else None


def _password(file: BinaryIO, where: str) -> SecretValue:
    data = without_line_end(read_bounded(file, where, _MAX_PASSWORD_BYTES))
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{where}: the password is not valid UTF-8") from None
    if not text:
        raise UsageError(f"{where}: holds no password")
    return SecretValue(text)
