"""The states of a supervised process, in the words of Supervisor, and the moves between them.

This module imports nothing of ours. Who moves a process on stands beside each state.
"""

from __future__ import annotations

from enum import StrEnum


class ProcessState(StrEnum):
    """Where a supervised process is in its life."""

    STOPPED = "STOPPED"
    """Never started, or stopped on purpose. ``start`` moves it on."""
    STARTING = "STARTING"
    """Spawned, has not said that it is ready. Its ready line, its end or the deadline moves it on."""
    RUNNING = "RUNNING"
    """Ready. Its end or a stop moves it on."""
    BACKOFF = "BACKOFF"
    """Died; waits for its next start. The restart timer or a stop moves it on."""
    STOPPING = "STOPPING"
    """Was told to end. Its end moves it on; the stop ladder sees to that."""
    EXITED = "EXITED"
    """Died; the supervisor decides within the same step what comes next."""
    FATAL = "FATAL"
    """Died too often. Only a stop or a restart by a person moves it on."""


TRANSITIONS: dict[ProcessState, frozenset[ProcessState]] = {
    ProcessState.STOPPED: frozenset({ProcessState.STARTING}),
    ProcessState.STARTING: frozenset(
        {ProcessState.RUNNING, ProcessState.EXITED, ProcessState.STOPPING}
    ),
    ProcessState.RUNNING: frozenset({ProcessState.EXITED, ProcessState.STOPPING}),
    ProcessState.BACKOFF: frozenset(
        {ProcessState.STARTING, ProcessState.STOPPED, ProcessState.FATAL}
    ),
    ProcessState.STOPPING: frozenset({ProcessState.STOPPED}),
    ProcessState.EXITED: frozenset(
        {
            ProcessState.STARTING,
            ProcessState.BACKOFF,
            ProcessState.FATAL,
            ProcessState.STOPPED,
        }
    ),
    ProcessState.FATAL: frozenset({ProcessState.STARTING, ProcessState.STOPPED}),
}


def move(current: ProcessState, following: ProcessState) -> ProcessState:
    """Return ``following`` if a process may go there; called for every change of a state.

    Raises:
        RuntimeError: There is no such move; this is a bug of the caller.
    """
    if following not in TRANSITIONS[current]:
        raise RuntimeError(f"a process cannot go from {current} to {following}")
    return following
