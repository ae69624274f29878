"""The token that an agent-runner or a client shows: out of a file, because arguments and environment are seen by others."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from daemon.errors import SecretNeededError, UsageError
from daemon.secrets.given_file import open_given, read_bounded

CREDENTIAL = "runner-token"
"""The name of the file below ``$CREDENTIALS_DIRECTORY`` (systemd.exec(5), ``LoadCredential=``)."""
_MAX_BYTES = 4096

Say = Callable[[str], None]


def read_token(chosen: Path | None, env: Mapping[str, str], say: Say) -> str:
    """Return the token; called once per start.

    Args:
        chosen: The file that was configured, if any was.
        env: Says where the service manager has put credentials.
        say: Prints one line for the person who may want to know who else can read the file.

    Raises:
        SecretNeededError: No file is named.
        UsageError: It cannot be read, or does not hold one token.
    """
    path = chosen or credential(env, CREDENTIAL)
    if path is None:
        raise SecretNeededError(
            "no token: name its file by --token-file, RUNNER_TOKEN_FILE or as the credential "
            f"{CREDENTIAL} of the service; `runner tokens create` on the server makes one"
        )
    with open_given(path, "--token-file") as file:
        if os.fstat(file.fileno()).st_mode & stat.S_IROTH:
            say(f"warning: {path} can be read by every user of this host")
        content = read_bounded(file, f"--token-file {path}", _MAX_BYTES)
    token = content.decode("latin-1").strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"--token-file {path}: expected one token and nothing else")
    return token


def credential(env: Mapping[str, str], name: str) -> Path | None:
    """Return a credential that the service manager has handed over; None if there is none of this name."""
    folder = env.get("CREDENTIALS_DIRECTORY", "")
    path = Path(folder) / name
    return path if folder.startswith("/") and path.is_file() else None
