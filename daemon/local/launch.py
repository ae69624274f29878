"""What a daemon is told at its start, and how it gets that; ``pending_daemon`` spawns it.

One document through an inherited socket: paths, what the children run with, the token and the secrets. The same
code serves a first start by the CLI and a restart by the old daemon; a foreground start has it in anonymous memory. The
document is a plain dict, because the daemon reads it before it imports anything that it can do without.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from daemon.local.pending_daemon import PendingDaemon, daemon_argv
from daemon.paths import StateDir
from daemon.supervisor.spawning import new_nonce


def open_log(state: StateDir) -> int:
    """Return the daemon's log, for what it prints before it has set up its logs: why it, or its interpreter, cannot be loaded.

    Raises:
        OSError: It cannot be opened.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return os.open(state.log_file("daemon"), flags, 0o600)


def hand_over(
    daemon: PendingDaemon,
    state: StateDir,
    document: Mapping[str, Any],
    *,
    lock_fd: int,
    progress_fd: int,
) -> None:
    """Give a daemon its document, the lock, the pipe to report on, and its log.

    Raises:
        OSError: The log cannot be opened, or the descriptors cannot be sent.
    """
    log_fd = open_log(state)
    try:
        content = json.dumps(dict(document)).encode()
        daemon.send(content, lock_fd=lock_fd, progress_fd=progress_fd, log_fd=log_fd)
    finally:
        os.close(log_fd)


def exec_daemon(env: Mapping[str, str], document: Mapping[str, Any], *inherited: int) -> NoReturn:
    """Become a daemon in this very process, for a service manager that knows its pid.

    A new program image has neither the caller's environment nor what the caller imported.

    Raises:
        OSError: The interpreter cannot be executed.
    """
    launch_fd = in_memory(document)
    for fd in inherited:
        if fd >= 0:
            os.set_inheritable(fd, True)
    argv = daemon_argv(launch_fd, new_nonce())
    os.execve(argv[0], argv, dict(env))  # noqa: S606 - no shell is wanted


def in_memory(document: Mapping[str, Any]) -> int:
    """Return an inheritable descriptor to read a document from, for a process that becomes another.

    It is anonymous memory, because nobody would read the other end of a pipe.
    """
    fd = os.memfd_create("runner-launch", 0)
    with os.fdopen(os.dup(fd), "wb") as memory:
        memory.write(json.dumps(dict(document)).encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def launch_document(
    state: StateDir,
    children: list[dict[str, Any]],
    config: Mapping[str, Any],
    *,
    drain_timeout_s: float,
) -> dict[str, Any]:
    """Return the part of the document that holds no secret and no descriptor; ``config`` is for a restart."""
    return {
        "root": str(state.root),
        "runtime": str(state.runtime),
        "mode": config.get("mode", "local"),
        "drain_timeout_s": drain_timeout_s,
        "children": children,
        "config": dict(config),
    }


def state_of(document: Mapping[str, Any]) -> StateDir:
    """Return the state directory that a document names."""
    return StateDir(Path(document["root"]), Path(document["runtime"]))
