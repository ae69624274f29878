"""The bearer token of one installation: made once, kept over restarts, readable by its owner only."""

from __future__ import annotations

import os
import stat

from daemon.errors import StateDirError
from daemon.paths import StateDir
from daemon.supervisor.pid_files import replace_file

_TOKEN_BYTES = 32
_MAX_FILE_BYTES = 4096


def ensure_token(state: StateDir) -> str:
    """Return the token, after making it if there is none; called under the lock, once per start.

    Raises:
        StateDirError: The file cannot be read or written, or is not private.
    """
    try:
        token = _read(state)
        if not token:
            import secrets  # noqa: PLC0415 - once per installation

            token = secrets.token_urlsafe(_TOKEN_BYTES)
            replace_file(state.token, token.encode() + b"\n", durable=True)
    except OSError as error:
        raise StateDirError(f"cannot use {state.token}: {error.strerror}") from error
    return token


def _read(state: StateDir) -> str:
    try:
        fd = os.open(state.token, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return ""
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise StateDirError(f"{state.token} is not a file of yours; remove it")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise StateDirError(
                f"{state.token} can be read by other users; remove it, and a new one is made"
            )
        return file.read(_MAX_FILE_BYTES).decode("ascii", "replace").strip()
