"""The secret store, its password, the keyring, the masker, and who can look into the files and the memory."""

from __future__ import annotations

import ctypes
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agent_runner.hardening import harden
from daemon.config import load
from daemon.doctor.finding import Finding, Level, Subject
from daemon.errors import (
    DaemonError,
    KeyringUnusableError,
    NoSecretStoreError,
    SecretNeededError,
)

if TYPE_CHECKING:
    from daemon.secrets.store.sealed_file import SealedFile
    from daemon.secrets.store.store_folder import StoreFolder

_PR_GET_DUMPABLE = 3
_OTHERS = 0o077


def check_secrets(subject: Subject) -> Iterator[Finding]:
    """Yield what is to be said of secrets. Derives the store's key once if its password is at hand."""
    yield from _store(subject)
    yield _keyring()
    yield _masker()
    yield _memory()
    yield from _state_modes(subject)


def _store(subject: Subject) -> Iterator[Finding]:
    from daemon.secrets.store.location import find_store_dir  # noqa: PLC0415
    from daemon.secrets.store.secret_store import read_sealed  # noqa: PLC0415 - cryptography
    from daemon.secrets.store.store_folder import StoreFolder  # noqa: PLC0415

    name = "secrets.store"
    try:
        folder = StoreFolder(find_store_dir(subject.env))
        sealed = read_sealed(folder)
    except NoSecretStoreError as error:
        yield Finding(name, Level.NOTE, f"absent: {error}")
        return
    except DaemonError as error:
        yield Finding(name, Level.FAILED, str(error))
        return
    yield Finding(name, Level.OK, f"{folder.file}, {_cost(sealed)}")
    yield from _modes("secrets.modes", (folder.root, 0o700), (folder.file, 0o600))
    yield from _backups(folder.root)
    yield _password(subject, folder)
    yield from _weak_cost(sealed)


def _cost(sealed: SealedFile) -> str:
    return f"scrypt cost 2^{sealed.header.cost}"


def _weak_cost(sealed: SealedFile) -> Iterator[Finding]:
    from daemon.secrets.store.sealed_file import DEFAULT_COST  # noqa: PLC0415

    if sealed.header.cost < DEFAULT_COST:
        text = f"{_cost(sealed)} is less than the present 2^{DEFAULT_COST}"
        yield Finding("secrets.cost", Level.WARNING, text, "`runner secrets passwd` raises it")


def _backups(root: Path) -> Iterator[Finding]:
    """Old files open with the passwords that they had."""
    count = sum(path.name.startswith("secrets.json.bak-") for path in root.iterdir())
    if count:
        text = (
            f"{count} older file{'s' * (count > 1)} in {root}: opened by the password of its time"
        )
        yield Finding("secrets.backups", Level.NOTE, text, "remove what is not needed any more")


def _password(subject: Subject, folder: StoreFolder) -> Finding:
    from daemon.secrets.store_password import PasswordOptions  # noqa: PLC0415
    from daemon.secrets.unlock_store import unlock_store  # noqa: PLC0415

    name = "secrets.password"
    try:
        options = PasswordOptions(keyring=load(subject.env, {})["secrets.keyring"].value is True)
        _, found = unlock_store(folder, subject.env, options, lambda _line: None)
    except SecretNeededError:
        text = "not at hand without asking, so `runner local start` leaves the store locked"
        return Finding(name, Level.NOTE, text, "--unlock asks for it")
    except DaemonError as error:
        return Finding(name, Level.FAILED, str(error))
    return Finding(name, Level.OK, f"from the {found.source}; it opens the store")


def _keyring() -> Finding:
    from daemon.secrets import os_keyring  # noqa: PLC0415

    name = "secrets.keyring"
    try:
        return Finding(name, Level.OK, os_keyring.backend_name())
    except KeyringUnusableError as error:
        return Finding(name, Level.NOTE, f"absent: {error}", "the secret store needs none")


def _masker() -> Finding:
    from sandbox.masking.masker import Masker  # noqa: PLC0415

    masker = Masker()
    masker.add("doctor", os.urandom(16).hex())
    engine = masker.snapshot()
    found = "none" if engine is None else engine.name
    name = "secrets.masker"
    try:
        import ahocorasick_rs  # noqa: F401, PLC0415
    except ImportError:
        text = f"{found}: hides the same, but slowly"
        return Finding(name, Level.WARNING, text, "pip install ahocorasick-rs")
    return Finding(name, Level.OK, found)


def _memory() -> Finding:
    """Look at this very process after it has done what each process does that holds secrets."""
    name = "secrets.memory"
    harden()
    dumpable = ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    core, _ = resource.getrlimit(resource.RLIMIT_CORE)
    if dumpable or core:
        text = "this kernel lets other processes of yours read the memory of the runner"
        return Finding(name, Level.WARNING, text)
    return Finding(name, Level.OK, "closed to other processes of yours, and no core files")


def _state_modes(subject: Subject) -> Iterator[Finding]:
    state = subject.state
    if state is not None and state.root.exists():
        paths = ((state.root, 0o700), (state.token, 0o600), (state.database, 0o600))
        yield from _modes("secrets.state", *paths)


def _modes(name: str, *paths: tuple[Path, int]) -> Iterator[Finding]:
    """Yield one finding for each path that is not private to this user, or one for all of them."""
    good = True
    for path, mode in paths:
        try:
            status = path.lstat()
        except OSError:
            continue
        found = stat.S_IMODE(status.st_mode)
        if status.st_uid != os.geteuid():
            good = False
            yield Finding(name, Level.WARNING, f"{path} belongs to user {status.st_uid}")
        elif found & _OTHERS:
            good = False
            text = f"{path} has mode {found:04o}: others can reach it"
            yield Finding(name, Level.WARNING, text, f"chmod {mode:o} {path}")
    if good:
        yield Finding(name, Level.OK, f"{paths[0][0]} is private")
