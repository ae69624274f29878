"""``runner local start``: one daemon per state directory, however many people start it at once."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from daemon.config import LocalConfig, environ
from daemon.errors import BusyError, Interrupted, NotRunningError, StartFailedError
from daemon.local.environment import allowed_environment
from daemon.local.identities import living_processes
from daemon.local.launch import exec_daemon, hand_over, launch_document, open_log
from daemon.local.lock import take_lock
from daemon.local.pending_daemon import PendingDaemon, spawn_pending, take_ahead
from daemon.local.status import query_status, shown
from daemon.paths import StateDir

WAIT_FOR_LOCK_S = 15.0
REPORT_BOUND_S = 60.0
"""The daemon keeps its own, shorter deadlines; this one is for a daemon that hangs."""
GIVE_UP_BOUND_S = 60.0
_POLL_S = 0.05

Report = Callable[[dict[str, Any]], None]
Children = Callable[
    [StateDir, LocalConfig, Mapping[str, str], Mapping[str, str]], list[dict[str, Any]]
]


class StartResult(NamedTuple):
    """What runs after a start or restart."""

    already: bool
    """It ran before; nothing was changed."""
    status: dict[str, Any]
    """As ``status_local`` returns it."""


def start_local(  # noqa: PLR0913 - one use-case, told everything at once
    state: StateDir,
    config: LocalConfig,
    secrets: Mapping[str, str],
    report: Report,
    *,
    store: Mapping[str, str] | None = None,
    children: Children | None = None,
    wait_for_lock_s: float = WAIT_FOR_LOCK_S,
) -> StartResult:
    """Start the daemon and its children and return when all are ready.

    A daemon that runs already is left alone, a starting one is waited for, one that goes down gets 15 s.

    Args:
        state: Where it keeps everything.
        config: What it runs with.
        secrets: Values by name; they reach the agent-runner through sockets only.
        report: Called with each progress line as it comes.
        store: The secret store: ``path``, and ``key`` in hexadecimal if it was unlocked.
        children: Makes what is run; given by tests only.
        wait_for_lock_s: How long a previous instance may take to go down.

    Raises:
        StateDirError: The state directory cannot be used.
        StartFailedError: A process did not become ready; nothing is left running. The failure's
            line, with the tail of the log, was reported before.
        BusyError: A previous instance does not go away.
        Interrupted: Ctrl-C; nothing is left running.
    """
    lock_fd = _lock_or_status(state, wait_for_lock_s)
    if not isinstance(lock_fd, int):
        return StartResult(already=True, status=lock_fd)
    env = environ()

    def make() -> dict[str, Any]:
        return _document(state, config, env, secrets, children) | {"store": dict(store or {})}

    _launch(state, allowed_environment(env, secrets), lock_fd, make, report)
    return StartResult(already=False, status=shown(query_status(state)))


def run_foreground(
    state: StateDir,
    config: LocalConfig,
    secrets: Mapping[str, str],
    *,
    store: Mapping[str, str] | None = None,
    children: Children | None = None,
) -> NoReturn:
    """Become the daemon, for a service manager or a container; never returns.

    The process image is replaced, so that neither the environment nor the imports of the CLI live
    on. The pid stays. The exit code is the daemon's: 0 after a clean stop, 1 otherwise.

    Raises:
        StateDirError, BusyError: As ``start_local``; a daemon that runs already is a BusyError.
    """
    lock_fd = _lock_or_status(state, WAIT_FOR_LOCK_S)
    if not isinstance(lock_fd, int):
        pid = lock_fd["processes"]["daemon"]["pid"]
        raise BusyError(f"a daemon runs already for {state.root}: pid {pid}")
    state.prepare()
    env = environ()
    document = _document(state, config, env, secrets, children)
    document |= {"store": dict(store or {}), "lock_fd": lock_fd, "progress_fd": -1}
    document["foreground"] = True
    document["notify_socket"] = env.get("NOTIFY_SOCKET", "")
    exec_daemon(allowed_environment(env, secrets), document, lock_fd)


def _launch(
    state: StateDir,
    env: Mapping[str, str],
    lock_fd: int,
    make_document: Callable[[], dict[str, Any]],
    report: Report,
) -> None:
    """Spawn the daemon, unless that was done ahead, hand it the lock and the document, and wait until it has started."""
    progress_in, progress_out = os.pipe()
    try:
        state.prepare()
        try:
            daemon = take_ahead(env) or spawn_pending(env)
        except OSError as error:
            raise StartFailedError(f"the daemon cannot be started: {error}") from error
        with daemon:
            document = make_document()
            try:
                hand_over(daemon, state, document, lock_fd=lock_fd, progress_fd=progress_out)
            except OSError as error:
                raise StartFailedError(f"the daemon cannot be started: {error}") from error
    except BaseException:
        os.close(progress_in)
        raise
    finally:
        os.close(lock_fd)
        os.close(progress_out)
    _follow(state, daemon, progress_in, report)


def _document(
    state: StateDir,
    config: LocalConfig,
    env: Mapping[str, str],
    secrets: Mapping[str, str],
    children: Children | None,
) -> dict[str, Any]:
    # Imported late, while the daemon's interpreter starts.
    from daemon.local.children import local_children  # noqa: PLC0415
    from daemon.local.token import ensure_token  # noqa: PLC0415

    settings = config._asdict() | {"containers": config.containers.document()}
    del settings["secrets"]
    document = launch_document(
        state,
        (children or local_children)(state, config, env, secrets),
        settings,
        drain_timeout_s=config.drain_timeout_s,
    )
    return document | {"token": ensure_token(state), "secrets": dict(secrets)}


def _lock_or_status(state: StateDir, bound_s: float) -> int | dict[str, Any]:
    """Return the lock, or the status of the instance that has it and is ready."""
    deadline = time.monotonic() + bound_s
    while True:
        lock_fd = take_lock(state)
        if lock_fd is not None:
            return lock_fd
        problem = "another start or stop goes on"
        try:
            status = query_status(state)
        except NotRunningError:
            living = living_processes(state)
            if living:
                names = ", ".join(f"{name} pid {one.pid}" for name, one in living.items())
                problem = f"a previous instance is still going down: {names}"
        else:
            phase = status.pop("phase")
            if phase == "running":
                return status
            problem = f"a daemon with pid {status['processes']['daemon']['pid']} is {phase}"
            if phase == "starting":  # it has a deadline of its own
                deadline = time.monotonic() + bound_s
        if time.monotonic() >= deadline:
            raise BusyError(f"{state.root} is in use: {problem}; try again, or `runner local stop`")
        time.sleep(_POLL_S)


def _follow(state: StateDir, daemon: PendingDaemon, progress_fd: int, report: Report) -> None:
    """Report every line until the daemon has started or failed."""
    try:
        last = follow_lines(progress_fd, report)
    except KeyboardInterrupt:
        daemon.call_off()
        daemon.wait_end(GIVE_UP_BOUND_S)
        raise Interrupted("the start was interrupted; nothing is left running") from None
    finally:
        os.close(progress_fd)
    if last.get("started"):
        return
    if not last:
        tail = _crash_tail(state, daemon)
        last = {
            "failed": "daemon: it ended or hung at start",
            "process": "daemon",
            "log_tail": tail,
        }
        report(last)
        daemon.call_off()
    daemon.wait_end(GIVE_UP_BOUND_S)
    raise StartFailedError(str(last["failed"]))


def follow_lines(fd: int, report: Report) -> dict[str, Any]:
    """Report each line of a progress pipe; return the last one, or {} if it ends or hangs without."""
    deadline = time.monotonic() + REPORT_BOUND_S
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    rest = b""
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        chunk = os.read(fd, 65536)
        if not chunk:
            break
        *lines, rest = (rest + chunk).split(b"\n")
        for line in map(json.loads, lines):
            report(line)
            if "started" in line or "failed" in line:
                return dict(line)
    return {}


def _crash_tail(state: StateDir, daemon: PendingDaemon) -> str:
    """Return the end of the daemon's log, in which stands now what it printed before it had one."""
    from daemon.local.log_files import last_lines  # noqa: PLC0415 - only on the way to an error

    log_fd = open_log(state)
    try:
        os.write(log_fd, daemon.said())
    finally:
        os.close(log_fd)
    return "\n".join(last_lines(state.log_file("daemon"), 20))
