"""Every path of one installation, and the modes they must have.

State lies in one directory (XDG Base Directory: ``$XDG_STATE_HOME/runner``). Sockets lie in ``$XDG_RUNTIME_DIR/runner``
where that exists, because state may be on a file system without sockets; ``endpoints.json`` tells where they are,
so that a client with another environment finds them too. Two things cannot lie below the state directory
when root runs the product: workspaces, because the unprivileged job user must be able to reach them.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from daemon.errors import StateDirError

try:
    # hashlib loads OpenSSL for its own: 4 MB, and a tenth of the start of whoever does without.
    from _sha256 import sha256  # type: ignore[import-not-found] # typeshed has no private modules
except ImportError:  # another Python than CPython 3.11
    from hashlib import sha256

MAX_SOCKET_PATH_BYTES = 107
"""sun_path holds 108 bytes with the closing NUL (unix(7))."""
URI_SPECIAL = frozenset("#?%,")
"""gRPC reads ``unix:PATH`` as a URI (RFC 3986) or a list: such a path would not be the one that is meant."""
ROOT_WORKSPACES = Path("/var/lib/runner")


class StateDir(NamedTuple):
    """The paths below and beside one state directory. Nothing is created until ``prepare``."""

    root: Path
    runtime: Path
    """Folder of the sockets; 0700."""

    @property
    def id(self) -> str:
        """Return a short name that no other state directory of this host has."""
        return _digest(self.root)

    @property
    def lock(self) -> Path:
        """Return the file whose flock makes one instance."""
        return self.root / "lock"

    def pid_file(self, process: str) -> Path:
        """Return the PID file of ``daemon``, ``job-server`` or an agent-runner."""
        return self.root / f"{process}.pid"

    def log_file(self, process: str) -> Path:
        """Return the log of ``daemon``, ``job-server`` or an agent-runner."""
        return self.root / "logs" / f"{process}.log"

    @property
    def token(self) -> Path:
        """Return the file with the bearer token; 0600."""
        return self.root / "token"

    @property
    def endpoints(self) -> Path:
        """Return the file that tells clients the mode and the addresses of the running instance."""
        return self.root / "endpoints.json"

    @property
    def database(self) -> Path:
        """Return the SQLite file."""
        return self.root / "runner.db"

    @property
    def job_logs(self) -> Path:
        """Return the folder of the job logs."""
        return self.root / "job-logs"

    @property
    def spool(self) -> Path:
        """Return the folder of unacknowledged log bytes; that of the first agent-runner."""
        return self.root / "spool"

    def spool_of(self, number: int) -> Path:
        """Return the same folder of the n-th agent-runner."""
        return self.spool if number == 1 else self.root / f"spool-{number}"

    @property
    def workspaces(self) -> Path:
        """Return the parent of the folders in which agent-runner and ``run-local`` keep their workspaces."""
        if os.geteuid() == 0:
            return ROOT_WORKSPACES / self.id
        return self.root / "workspaces"

    @property
    def results(self) -> Path:
        """Return the folder of results that stand for equal jobs."""
        return self.root / "results"

    @property
    def sources(self) -> Path:
        """Return the folder in which the sources of jobs are prepared, with the mirrors of repositories."""
        return self.root / "sources"

    @property
    def server_socket(self) -> Path:
        """Return the unix socket of the job server."""
        return self.runtime / "server.sock"

    @property
    def control_socket(self) -> Path:
        """Return the unix socket of the daemon."""
        return self.runtime / "daemon.sock"

    def prepare(self) -> None:
        """Create the folders with mode 0700 and check them; called by the daemon and ``run-local``.

        Raises:
            StateDirError: One cannot be made or written, belongs to somebody else, or is a link.
        """
        for folder in (self.root, self.root / "logs", self.job_logs, self.spool, self.runtime):
            make_private_dir(folder)


def find_state_dir(env: Mapping[str, str], explicit: str | None = None) -> StateDir:
    """Return the state directory: ``--state-dir``, else ``RUNNER_STATE_DIR``, else XDG, else below HOME.

    Raises:
        StateDirError: None of them gives an absolute place.
    """
    chosen = explicit or env.get("RUNNER_STATE_DIR")
    if chosen:
        root = Path(os.path.abspath(chosen))  # noqa: PTH100 - resolve() would follow links
    else:
        base = env.get("XDG_STATE_HOME", "")
        if base.startswith("/"):
            root = Path(base) / "runner"
        elif env.get("HOME", "").startswith("/"):
            root = Path(env["HOME"]) / ".local" / "state" / "runner"
        else:
            raise StateDirError("no place for the state: set HOME, XDG_STATE_HOME or --state-dir")
    return StateDir(root, _runtime_dir(root, env, default=not chosen))


def config_file(env: Mapping[str, str]) -> Path | None:
    """Return the path of the user's configuration file, which need not exist."""
    if env.get("RUNNER_CONFIG"):
        return Path(env["RUNNER_CONFIG"])
    base = env.get("XDG_CONFIG_HOME", "")
    if base.startswith("/"):
        return Path(base) / "runner" / "config.toml"
    if env.get("HOME", "").startswith("/"):
        return Path(env["HOME"]) / ".config" / "runner" / "config.toml"
    return None


def _runtime_dir(root: Path, env: Mapping[str, str], *, default: bool) -> Path:
    candidates = []
    xdg = env.get("XDG_RUNTIME_DIR", "")
    if xdg.startswith("/") and _is_private_dir(Path(xdg)):
        name = "runner" if default else f"runner/{_digest(root)}"
        candidates.append(Path(xdg) / name)
    candidates.append(root / "run")
    for candidate in candidates:
        if _takes_sockets(candidate):
            return candidate
    # A deep state directory leaves no room for a socket's name: a short, owner-checked folder does.
    short = Path(f"/tmp/runner-{os.geteuid()}-{_digest(root)}")  # noqa: S108
    if _takes_sockets(short):
        return short
    raise StateDirError(f"{root} is too long a path for a socket; choose a shorter --state-dir")


def _takes_sockets(folder: Path) -> bool:
    if not URI_SPECIAL.isdisjoint(str(folder)):
        return False
    return len(os.fsencode(folder / "server.sock")) <= MAX_SOCKET_PATH_BYTES


def _digest(path: Path) -> str:
    digest: str = sha256(os.fsencode(path)).hexdigest()
    return digest[:12]


def _is_private_dir(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def make_private_dir(path: Path) -> None:
    """Create a folder (and its parents) with mode 0700, or check the one that is there.

    Raises:
        StateDirError: It cannot be made or written, belongs to somebody else, or is a link.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise StateDirError(
                f"{path} is not a directory; move it away or choose another --state-dir"
            )
        if status.st_uid != os.geteuid():
            raise StateDirError(
                f"{path} belongs to user {status.st_uid}, not to you; choose another --state-dir"
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise StateDirError(
            f"cannot use {path}: {error.strerror}; choose another --state-dir"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise StateDirError(f"cannot write to {path}; choose another --state-dir")
