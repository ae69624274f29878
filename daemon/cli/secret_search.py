"""Where ``local start``, ``local restart`` and ``run-local`` look for secrets, as their flags and the configuration say."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from daemon.cli.output import note
from daemon.config import environ, load
from daemon.errors import KeyringUnusableError, SecretNeededError, UsageError

if TYPE_CHECKING:
    from agent_runner.secret_refs import SecretRef
    from daemon.secrets.gather import SecretSources
    from daemon.secrets.store.secret_store import SecretStore
    from daemon.secrets.store.stored_secret import StoredSecret

KEYRING_VARIABLES = ("DBUS_SESSION_BUS_ADDRESS", "PYTHON_KEYRING_BACKEND")
LOCKED = (
    "secret store: locked; what refers to it will not run (--unlock asks for its password, "
    "RUNNER_SECRETS_PASSWORD gives it)"
)


class SearchFlags(NamedTuple):
    """What the command line says; see ``search_options``."""

    unlock: bool
    password_fd: int | None
    password_file: Path | None
    keyring: bool | None
    no_input: bool

    @property
    def needs_store(self) -> bool:
        """Tell whether the person counts on the store being there."""
        return self.unlock or self.password_fd is not None or self.password_file is not None


def search_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags; the command gets them as ``search``."""

    @functools.wraps(command)
    def run(
        *args: Any,
        unlock: bool,
        password_fd: int | None,
        password_file: Path | None,
        keyring: bool | None,
        no_input: bool,
        **kwargs: Any,
    ) -> Any:
        flags = SearchFlags(
            unlock=unlock,
            password_fd=password_fd,
            password_file=password_file,
            keyring=keyring,
            no_input=no_input,
        )
        return command(*args, search=SecretSearch(flags), **kwargs)

    decorated: Callable[..., Any] = run
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


_OPTIONS = (
    click.option("--unlock", is_flag=True, help="Ask for the password of the secret store."),
    click.option(
        "--password-fd", type=int, metavar="N", help="Read that password from this descriptor."
    ),
    click.option(
        "--password-file",
        type=click.Path(path_type=Path, allow_dash=True, readable=False),
        metavar="FILE",
        help="Read that password from this file.",
    ),
    click.option(
        "--keyring/--no-keyring",
        default=None,
        help="Look into the keyring of the desktop, or do not (default: if there may be one).",
    ),
    click.option("--no-input", is_flag=True, help="Never ask for anything."),
)


class SecretSearch:
    """One invocation's search. The store is unlocked at most once, so that its key is derived once."""

    def __init__(self, flags: SearchFlags) -> None:
        self.flags = flags
        self.env = environ()
        self.ask = None if flags.no_input or not sys.stdin.isatty() else _ask
        self.store: SecretStore | None = None
        """Once ``open_store`` has unlocked it."""
        self._contents: dict[tuple[str, str], StoredSecret] | None = None

    @property
    def store_file(self) -> Path | None:
        """Return the file of the store, whether it is there or not; None where there is no place for it."""
        from daemon.secrets.store.location import find_store_dir  # noqa: PLC0415

        try:
            return find_store_dir(self.env) / "secrets.json"
        except UsageError:
            return None

    def open_store(self, *, may_ask: bool = False, needed: bool = False) -> SecretStore | None:
        """Return the unlocked store; None if there is none, or if nothing unlocks it without asking.

        Args:
            may_ask: Whether the person is asked for the password, also without ``--unlock``.
            needed: Whether the command cannot do without it.

        Raises:
            NoSecretStoreError: There is none, and it is needed or the flags name its password.
            SecretNeededError: The same for the password.
            WrongPasswordError, DamagedSecretStoreError, UsageError, Interrupted: As ``unlock_store``.
        """
        needed = needed or self.flags.needs_store
        file = self.store_file
        if self.store is not None or (not needed and not _is_there(file)):
            return self.store
        # Cryptography and the rest are loaded only where there is a store.
        from daemon.cli.secrets_access import StoreAccess  # noqa: PLC0415
        from daemon.secrets.store.location import find_store_dir  # noqa: PLC0415
        from daemon.secrets.store.store_folder import StoreFolder  # noqa: PLC0415
        from daemon.secrets.store_password import PasswordOptions  # noqa: PLC0415

        options = PasswordOptions(
            fd=self.flags.password_fd, file=self.flags.password_file, keyring=self._chosen()
        )
        ask = self.ask if may_ask or self.flags.unlock else None
        folder = StoreFolder(find_store_dir(self.env), warn=note)
        try:
            self.store, _ = StoreAccess(folder, self.env, options, ask).unlock()
        except SecretNeededError:
            if needed:
                raise
        return self.store

    def has_store(self) -> bool:
        """Tell whether there is a store, locked or not."""
        return _is_there(self.store_file)

    def is_stale(self, header: str) -> bool:
        """Tell whether the password of the store was changed since a key for a header was made; called by a restart.

        Args:
            header: Digest of the header for which the daemon holds a key; empty if it holds none.

        Raises:
            DamagedSecretStoreError, UsageError, SecretStoreError: The store cannot be read.
        """
        file = self.store_file
        if not header or file is None or not _is_there(file):
            return False
        from daemon.secrets.store.sealed_file import parse_sealed  # noqa: PLC0415
        from daemon.secrets.store.store_folder import StoreFolder  # noqa: PLC0415

        sealed = parse_sealed(StoreFolder(file.parent).read(), str(file))
        return sealed.header.digest().hex() != header

    def document(self) -> dict[str, str]:
        """Return what the daemon is told of the store: its file, and its key if it was unlocked."""
        file = self.store_file
        key = "" if self.store is None else self.store.key.to_bytes().hex()
        return {"path": "" if file is None else str(file), "key": key}

    def stored(self, refs: Sequence[SecretRef]) -> dict[SecretRef, str]:
        """Return the values that the store has, if ``open_store`` has unlocked it.

        Raises:
            UsageError: No variable can carry one of them; names it.
        """
        if self.store is None:
            return {}
        from daemon.secrets.usable import problem_of  # noqa: PLC0415 - most starts have no store

        secrets = self._read(self.store)
        found = {ref: secrets[ref].reveal_text() for ref in refs if ref in secrets}
        problems = {ref: problem for ref, value in found.items() if (problem := problem_of(value))}
        if problems:
            texts = (f"the value of {ref} {problem}" for ref, problem in problems.items())
            raise UsageError(f"no job can be given this: {'; '.join(texts)}")
        return {ref: value for ref, value in found.items() if value is not None}

    def sources(self) -> SecretSources:
        """Return where values are looked for; the store only if ``open_store`` has unlocked it."""
        from daemon.secrets.gather import SecretSources  # noqa: PLC0415 - most jobs have no secret

        return SecretSources(
            environ=self.env,
            store=None if self.store is None else self._look_in_store,
            keyring=_Keyring() if self._may_have_keyring() else None,
            ask=self.ask,
        )

    def _look_in_store(self, name: str) -> str | None:
        from agent_runner.secret_refs import LOCAL_PATH, SecretRef  # noqa: PLC0415

        found = self.stored([SecretRef(LOCAL_PATH, name)])
        return next(iter(found.values()), None)

    def _read(self, store: SecretStore) -> Mapping[tuple[str, str], StoredSecret]:
        """Return the content of the store, which is decrypted once, by path and key."""
        if self._contents is None:
            self._contents = {(name.path, name.key): one for name, one in store.read_all().items()}
        return self._contents

    def _chosen(self) -> bool:
        return self._keyring_setting().value is True

    def _keyring_setting(self) -> Any:
        return load(self.env, {"secrets.keyring": self.flags.keyring})["secrets.keyring"]

    def _may_have_keyring(self) -> bool:
        """Tell whether it is worth a process: on a host without a desktop it is not, and nobody wants to read that."""
        setting = self._keyring_setting()
        if setting.origin != "default":
            return setting.value is True
        bus = Path(self.env.get("XDG_RUNTIME_DIR") or "/nonexistent") / "bus"
        return bus.exists() or any(self.env.get(name) for name in KEYRING_VARIABLES)


def _is_there(file: Path | None) -> bool:
    # Not exists(): a folder that may not be looked into is none of ours, and no error.
    return file is not None and os.access(file, os.F_OK)


class _Keyring:
    """Looks into the keyring, until it cannot be used: that is said once, and it is not asked again."""

    def __init__(self) -> None:
        self._usable = True

    def __call__(self, name: str) -> str | None:
        from daemon.secrets import os_keyring  # noqa: PLC0415 - starts a process
        from daemon.secrets.saving import KEYRING_SERVICE  # noqa: PLC0415

        if not self._usable:
            return None
        try:
            return os_keyring.load(KEYRING_SERVICE, name)
        except KeyringUnusableError as error:
            self._usable = False
            note(f"keyring: {error}; going on without it")
            return None


def _ask(label: str) -> str | None:
    from daemon.secrets.prompt import ask_secret  # noqa: PLC0415 - only for a person

    return ask_secret(label)
