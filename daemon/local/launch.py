"""What a daemon is told at its start, and how it is started.

One document through an inherited pipe: paths, what the children run with, the token and the secrets. The same
code serves a first start by the CLI, a foreground start and a restart by the old daemon. The document is a
plain dict, because the daemon reads it before it imports anything that it can do without.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Self

from daemon.paths import StateDir
from daemon.supervisor.spawning import new_nonce

CHILD_VARIABLES = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "TZ",
        "TMPDIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "LD_LIBRARY_PATH",
        "PYTHONHOME",
        "PYTHONPATH",
        "PYTHONUTF8",
        "PYTHONIOENCODING",
        "PYTHONNOUSERSITE",
        "PYTHONUSERBASE",
        "PYTHONPYCACHEPREFIX",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONFAULTHANDLER",
    }
)
"""What the long-lived processes get from the caller's environment: it may hold secrets, so the rest stays out."""
CHILD_PREFIXES = ("LC_", "XDG_")
END_BOUND_S = 5.0


def allowed_environment(env: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment that a long-lived process may have; never a secret."""
    return {
        name: value
        for name, value in env.items()
        if (name in CHILD_VARIABLES or name.startswith(CHILD_PREFIXES)) and name not in secrets
    }


def daemon_argv(launch_fd: int, nonce: str) -> list[str]:
    """Return the command of a daemon. ``-P``: a folder named daemon in the caller's folder is not ours."""
    arguments = ["--instance", nonce, "--launch-fd", str(launch_fd)]
    return [sys.executable, "-P", "-m", "daemon", *arguments]


class PendingDaemon:
    """A daemon that was spawned and waits for its document; it starts up while that is made."""

    def __init__(self, popen: subprocess.Popen[bytes], launch_fd: int, nonce: str) -> None:
        self.popen = popen
        self.nonce = nonce
        self._launch_fd = launch_fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_exc: object) -> None:
        """A daemon that gets no document ends by itself; it is not left behind as a zombie."""
        if exc_type is not None:
            if self._launch_fd >= 0:
                os.close(self._launch_fd)
                self._launch_fd = -1
            self.wait_end(END_BOUND_S)

    def let_go(self) -> None:
        """Forget the process: it lives on without us, and Popen is not to complain of that."""
        self.popen.returncode = 0

    def call_off(self) -> None:
        """Tell it to stop at once: two signals of different kinds, because two of one kind may merge."""
        self.popen.send_signal(signal.SIGTERM)
        self.popen.send_signal(signal.SIGINT)

    def wait_end(self, bound_s: float) -> None:
        """Wait for its end and kill it after the bound; its children notice that by themselves."""
        try:
            self.popen.wait(bound_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()

    def send(self, document: Mapping[str, Any]) -> None:
        """Give it the document; a daemon that has died already is told by its progress pipe."""
        fd, self._launch_fd = self._launch_fd, -1
        rest = memoryview(json.dumps(dict(document)).encode())
        try:
            while rest:
                rest = rest[os.write(fd, rest) :]
        except BrokenPipeError:
            return
        finally:
            os.close(fd)


def spawn_daemon(
    state: StateDir, env: Mapping[str, str], lock_fd: int, progress_fd: int
) -> PendingDaemon:
    """Start a daemon in a session of its own, with the lock and the pipe to report on.

    What it prints before its log is set up, which can only be a crash of the interpreter, goes to
    that log directly.

    Raises:
        OSError: It cannot be started, or its log cannot be opened.
    """
    nonce = new_nonce()
    launch_in, launch_out = os.pipe()
    log = state.log_file("daemon")
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        popen = subprocess.Popen(
            daemon_argv(launch_in, nonce),
            env=dict(env),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            pass_fds=[fd for fd in (launch_in, lock_fd, progress_fd) if fd >= 0],
            start_new_session=True,
        )
    except OSError:
        os.close(launch_out)
        raise
    finally:
        os.close(launch_in)
        os.close(log_fd)
    return PendingDaemon(popen, launch_out, nonce)


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
