"""The store of secrets: reads and changes it with a key that was derived once."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from daemon.clock import Clock, SystemClock
from daemon.errors import SecretExistsError, SecretNotFoundError, UsageError
from daemon.secrets.store.contents import Contents, parse_contents
from daemon.secrets.store.names import SecretName
from daemon.secrets.store.sealed_file import (
    DEFAULT_COST,
    SALT_BYTES,
    Header,
    SealedFile,
    parse_sealed,
)
from daemon.secrets.store.store_folder import StoreFolder
from daemon.secrets.store.store_key import StoreKey, make_key, unlock
from daemon.secrets.store.stored_secret import StoredSecret, check_size
from daemon.secrets.values import SecretValue


class OnConflict(enum.Enum):
    """What happens to a name that the store has already."""

    REPLACE = enum.auto()
    SKIP = enum.auto()
    REFUSE = enum.auto()
    REFUSE_OTHER_VALUE = enum.auto()
    """Refuse, unless the stored value is the same."""


@dataclass(slots=True)
class PutResult:
    """What became of each name of one ``put``."""

    added: list[SecretName] = field(default_factory=list)
    replaced: list[SecretName] = field(default_factory=list)
    unchanged: list[SecretName] = field(default_factory=list)
    skipped: list[SecretName] = field(default_factory=list)


def read_sealed(folder: StoreFolder) -> SealedFile:
    """Return the file as it lies there, bounds checked; called before a password is asked for.

    Raises:
        NoSecretStoreError, DamagedSecretStoreError, UsageError, SecretStoreError: As ``StoreFolder.read`` and ``parse_sealed``.
    """
    return parse_sealed(folder.read(), str(folder.file))


class SecretStore:
    """A store that is unlocked.

    Its key is derived once, in ``create`` or ``open``; no method does it again unless the password was changed meanwhile.
    Every method reads the file anew, so a store may be kept for long and used beside other processes. Not for
    several threads at once. Raises of every method beside its own: those of ``StoreFolder``, and

    * SecretKeyStaleError where only the key is known and the password was changed since;
    * WrongPasswordError where the password was changed since and the known one opens it no more;
    * DamagedSecretStoreError where the file was damaged since.
    """

    def __init__(
        self,
        folder: StoreFolder,
        key: StoreKey,
        password: SecretValue | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.folder = folder
        self.key = key
        """What ``open_with_key`` takes, in this process or in one that was handed it over a pipe."""
        self._password = password
        self._clock = clock or SystemClock()

    @classmethod
    def create(
        cls,
        folder: StoreFolder,
        password: SecretValue,
        *,
        cost: int = DEFAULT_COST,
        force: bool = False,
        kept: Callable[[str], None] | None = None,
    ) -> Self:
        """Make a new, empty store with a new salt.

        Args:
            folder: Where.
            password: Opens it.
            cost: Power of two of scrypt's n.
            force: Whether a store that is there is replaced; it is kept under another name.
            kept: Told that name.

        Raises:
            UsageError: There is a store already, and not ``force``.
            BusyError: Another process holds the lock.
        """
        header = _new_header(cost)
        key, check = make_key(header, password)
        folder.make()
        with folder.writing():
            if folder.exists():
                if not force:
                    raise UsageError(already_there(folder))
                backup = folder.back_up()
                if kept is not None:
                    kept(str(backup))
            folder.replace(_seal(header, key, check, Contents()))
        return cls(folder, key, password)

    @classmethod
    def open(cls, folder: StoreFolder, password: SecretValue) -> Self:
        """Unlock a store with its password.

        Raises:
            WrongPasswordError: The password does not open it.
            NoSecretStoreError, DamagedSecretStoreError: As ``read_sealed``.
        """
        sealed = read_sealed(folder)
        key = unlock(sealed, password, str(folder.file))
        store = cls(folder, key, password)
        parse_contents(key.decrypt(sealed))
        return store

    @classmethod
    def open_with_key(cls, folder: StoreFolder, key: StoreKey) -> Self:
        """Unlock a store with a key that was derived before; costs no derivation, and touches nothing until it is used."""
        return cls(folder, key)

    @property
    def cost(self) -> int:
        """Return the cost of the present key derivation, as a power of two."""
        return read_sealed(self.folder).header.cost

    def read_all(self) -> dict[SecretName, StoredSecret]:
        """Return every value by name. Takes no lock."""
        return self._read().secrets

    def get(self, name: SecretName) -> StoredSecret:
        """Return one value.

        Raises:
            SecretNotFoundError: There is none; names it and no other.
        """
        try:
            return self._read().secrets[name]
        except KeyError:
            raise _not_found(name) from None

    def names(self) -> list[SecretName]:
        """Return all names, sorted."""
        return sorted(self._read().secrets)

    def generation(self) -> int:
        """Return how often the store was written since it was made."""
        return self._read().generation

    def put(
        self, values: Mapping[SecretName, bytes], on_conflict: OnConflict = OnConflict.REPLACE
    ) -> PutResult:
        """Store values, all or none. Nothing is written when nothing changes.

        Raises:
            UsageError: A value is too long.
            SecretExistsError: Names are there already and ``on_conflict`` refuses; lists those.
            BusyError: Another process holds the lock.
        """
        for value in values.values():
            check_size(value)
        result = PutResult()
        time = _rfc3339(self._clock.now_us())

        def edit(contents: Contents) -> bool:
            _refuse_conflicts(contents, values, on_conflict)
            for name, value in values.items():
                _put_one(contents, name, StoredSecret(value, time), on_conflict, result)
            return bool(result.added or result.replaced)

        self._change(edit)
        return result

    def delete(self, name: SecretName) -> None:
        """Remove one value.

        Raises:
            SecretNotFoundError: There is none; nothing is written.
            BusyError: Another process holds the lock.
        """

        def edit(contents: Contents) -> bool:
            if contents.secrets.pop(name, None) is None:
                raise _not_found(name)
            return True

        self._change(edit)

    def change_password(self, password: SecretValue, cost: int | None = None) -> None:
        """Encrypt everything anew under another password (or the same one) with a new salt.

        Args:
            password: The new one.
            cost: Power of two of scrypt's n; None takes the default, or the present one if that is higher.

        Raises:
            BusyError: Another process holds the lock.
        """
        header = _new_header(cost if cost is not None else max(DEFAULT_COST, self.cost))
        key, check = make_key(header, password)
        with self.folder.writing():
            contents = self._read()
            contents.generation += 1
            self.folder.replace(_seal(header, key, check, contents))
        self.key, self._password = key, password

    def sealed_copy(self, password: SecretValue | None = None) -> bytes:
        """Return the content of a store file with the same values, under the same password or another one."""
        sealed, contents = self._read_both()
        if password is None:
            return sealed.to_bytes()
        header = _new_header(max(DEFAULT_COST, sealed.header.cost))
        key, check = make_key(header, password)
        return _seal(header, key, check, contents)

    def _read(self) -> Contents:
        return self._read_both()[1]

    def _read_both(self) -> tuple[SealedFile, Contents]:
        sealed = read_sealed(self.folder)
        if not self.key.fits(sealed) and self._password is not None:
            self.key = unlock(sealed, self._password, str(self.folder.file))
        return sealed, parse_contents(self.key.decrypt(sealed))

    def _change(self, edit: Callable[[Contents], bool]) -> None:
        with self.folder.writing():
            sealed, contents = self._read_both()
            if edit(contents):
                contents.generation += 1
                self.folder.replace(_seal(sealed.header, self.key, sealed.check, contents))


def already_there(folder: StoreFolder) -> str:
    """Return what to do where a store is in the way of a new one."""
    return (
        f"{folder.file} exists already: change its password with `runner secrets passwd`, "
        "or start anew with `runner secrets init --force`, which keeps the old file"
    )


def _refuse_conflicts(
    contents: Contents, values: Mapping[SecretName, bytes], on_conflict: OnConflict
) -> None:
    """Raise if a name is there that must not be."""
    if on_conflict not in (OnConflict.REFUSE, OnConflict.REFUSE_OTHER_VALUE):
        return
    names = [
        str(name)
        for name, value in sorted(values.items())
        if name in contents.secrets
        and (on_conflict is OnConflict.REFUSE or contents.secrets[name].reveal() != value)
    ]
    if names:
        raise SecretExistsError(f"there already, so nothing was stored: {', '.join(names)}")


def _put_one(
    contents: Contents,
    name: SecretName,
    secret: StoredSecret,
    on_conflict: OnConflict,
    result: PutResult,
) -> None:
    present = contents.secrets.get(name)
    if present == secret:
        result.unchanged.append(name)
    elif present is not None and on_conflict is OnConflict.SKIP:
        result.skipped.append(name)
    else:
        (result.added if present is None else result.replaced).append(name)
        contents.secrets[name] = secret


def _seal(header: Header, key: StoreKey, check: bytes, contents: Contents) -> bytes:
    return SealedFile(header, check, key.encrypt(contents.to_bytes())).to_bytes()


def _new_header(cost: int) -> Header:
    return Header(salt=os.urandom(SALT_BYTES), n=1 << cost)


def _not_found(name: SecretName) -> SecretNotFoundError:
    return SecretNotFoundError(f"the secret store has no {name}")


def _rfc3339(time_us: int) -> str:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
