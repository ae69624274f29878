"""``runner local stop``: through the daemon if there is one, else by signals to verified processes only."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from daemon.errors import NotRunningError, StopFailedError
from daemon.local.control_client import ControlClient
from daemon.local.identities import living_processes, refuse_foreground, remove_stale_files
from daemon.local.lock import take_lock
from daemon.paths import StateDir
from daemon.supervisor import pid_files
from daemon.supervisor.pid_files import ProcessIdentity
from sandbox import procfs

SILENCE_BOUND_S = 15.0
"""A daemon that stops says something every two seconds; one that says nothing for so long hangs."""
DAEMON_BOUND_S = 10.0
"""From its last word to the end of the daemon."""
GRACE_S = 15.0
KILL_BOUND_S = 5.0
_POLL_S = 0.05

Report = Callable[[dict[str, Any]], None]


def stop_local(  # noqa: PLR0913 - the bounds, which tests make short
    state: StateDir,
    drain_timeout_s: float | None,
    now: bool,
    report: Report,
    *,
    silence_bound_s: float = SILENCE_BOUND_S,
    grace_s: float = GRACE_S,
) -> None:
    """Stop the daemon, its children and whatever they left, and return when all have gone.

    Args:
        state: Whose daemon.
        drain_timeout_s: How long running attempts may go on; None takes the daemon's own setting.
        now: Cancel running attempts at once.
        report: Called with each progress line as it comes.
        silence_bound_s: How long the daemon may say nothing.
        grace_s: How long processes that are signalled directly may take to end.

    Raises:
        NotRunningError: Nothing runs, and stale files were removed without signalling anybody; or what runs has no
            daemon, and whoever started it ends it.
        StopFailedError: Something survived KILL; names it.
    """
    living = living_processes(state)
    survivors: list[str] = []
    try:
        with ControlClient(state, timeout_s=silence_bound_s) as client:
            request = {"op": "stop", "drain_timeout_s": drain_timeout_s, "now": now}
            survivors = _follow(client, request, report)
    except NotRunningError:
        if not living:
            _clean_up(state)
            raise NotRunningError(f"not running: nothing to stop for {state.root}") from None
        refuse_foreground(living)
    except OSError:
        pass  # it died or hangs: the signals below see to what is left
    else:
        _await_end(living.values(), DAEMON_BOUND_S)
    survivors += _end_by_signals(state, living_processes(state), report, now=now, grace_s=grace_s)
    if survivors:
        raise StopFailedError(f"could not be stopped: {', '.join(survivors)}")
    _clean_up(state)


def _follow(client: ControlClient, request: Mapping[str, Any], report: Report) -> list[str]:
    for line in client.ask(request):
        if "stopped" in line:
            return list(line.get("survivors", ()))
        report(line)
    return []


def _end_by_signals(
    state: StateDir,
    living: Mapping[str, ProcessIdentity],
    report: Report,
    *,
    now: bool,
    grace_s: float,
) -> list[str]:
    """Climb the ladder for every verified process; return what survived."""
    if not living:
        return []
    trees = _trees(living)
    for name, identity in living.items():
        report({"process": name, "pid": identity.pid, "state": "stopping"})
        pid_files.send_signal(identity, signal.SIGTERM)
        if now:
            pid_files.send_signal(identity, signal.SIGINT)
    _await_end(living.values(), grace_s)
    trees |= _trees(living_processes(state))
    left = [stat for stat in trees.values() if _kill(stat)]
    deadline = time.monotonic() + KILL_BOUND_S
    while left and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        left = [stat for stat in left if _lives(stat)]
    for name, identity in living.items():
        if not pid_files.verify(identity):
            report({"process": name, "state": "stopped"})
    return [f"pid {stat.pid} ({procfs.command_line(stat.pid)})" for stat in left]


def _trees(living: Mapping[str, ProcessIdentity]) -> dict[int, procfs.ProcStat]:
    """Return the verified processes, their sessions and all that descends from them."""
    if not living:
        return {}
    processes = procfs.snapshot()
    roots = {identity.pid for identity in living.values()}
    roots |= {pid for pid, stat in processes.items() if stat.session in roots}
    found = roots | procfs.descendants(processes, roots)
    return {pid: processes[pid] for pid in found if pid in processes and pid != os.getpid()}


def _kill(stat: procfs.ProcStat) -> bool:
    """Kill exactly this process; tell whether it was there."""
    pidfd = procfs.open_process(stat)
    if pidfd is None:
        return False
    try:
        procfs.send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
    return True


def _lives(stat: procfs.ProcStat) -> bool:
    again = procfs.read_stat(stat.pid)
    return again is not None and again.start_ticks == stat.start_ticks and again.alive


def _await_end(identities: Any, bound_s: float) -> None:
    """Wait until all of these have ended, or the bound is over."""
    deadline = time.monotonic() + bound_s
    for identity in identities:
        pidfd = pid_files.open_verified(identity)
        if pidfd is None:
            continue
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        finally:
            os.close(pidfd)


def _clean_up(state: StateDir) -> None:
    """Remove stale files if nobody is starting just now."""
    if not state.root.is_dir():
        return
    lock_fd = take_lock(state)
    if lock_fd is not None:
        try:
            remove_stale_files(state)
        finally:
            os.close(lock_fd)
