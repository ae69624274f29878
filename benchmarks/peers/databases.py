"""Redis and PostgreSQL, each an instance of its own on a unix socket in a folder that is removed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.place import program
from benchmarks.peers.service import service

_PG_USERS = ("postgres", "nobody")
"""PostgreSQL does not run as root."""


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run Redis with an append-only file that is synced every second; yield its URL."""
    socket = folder / "redis.sock"
    argv = [program("redis-server"), "--port", "0", "--unixsocket", str(socket), "--save", ""]
    argv += ["--dir", str(folder), "--appendonly", "yes", "--appendfsync", "everysec"]
    with service(argv, folder / "redis.log", socket.exists):
        yield f"redis+socket://{socket}"


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run PostgreSQL with its default durability; yield how to connect.

    Raises:
        RuntimeError: Its database cannot be made.
    """
    initdb, server = program("initdb"), program("postgres")
    data = folder / "data"
    data.mkdir(mode=0o700)
    user = _unprivileged()
    if user is not None:
        for path in (folder, data):
            shutil.chown(path, user)
    made = subprocess.run(
        [initdb, "-D", str(data), "-A", "trust", "-U", "bench", "--no-locale", "-E", "UTF8"],
        cwd="/",
        user=user,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise RuntimeError(f"initdb: {made.stderr[-300:]}")
    argv = [server, "-D", str(data), "-c", "listen_addresses=", "-k", str(folder)]
    log = folder / "postgres.log"

    def ready() -> bool:
        return "ready to accept connections" in log.read_text()

    with service(argv, log, ready, user=user):
        yield f"host={folder} user=bench dbname=postgres"


def _unprivileged() -> str | None:
    """Return whom PostgreSQL is to run as; None for whoever runs this."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _PG_USERS if name in known)
