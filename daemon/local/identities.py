"""The processes that the PID files of a state directory name, if they are really there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from daemon.errors import NotRunningError
from daemon.paths import StateDir
from daemon.supervisor import pid_files
from daemon.supervisor.pid_files import ProcessIdentity

FOREGROUND = "daemon.foreground"
"""The module that such a process runs."""


def named_processes(state: StateDir) -> list[str]:
    """Return the processes that can have a PID file, in the order in which they are told to stop."""
    agents = sorted(path.stem for path in state.root.glob("agent-runner*.pid"))
    return ["daemon", *agents, "job-server"]


def living_processes(state: StateDir) -> dict[str, ProcessIdentity]:
    """Return the verified identities by name; stale, foreign and torn files name nobody."""
    found = {}
    for name in named_processes(state):
        identity = pid_files.read(state.pid_file(name))
        if identity is not None and pid_files.verify(identity):
            found[name] = identity
    return found


def is_in_foreground(identity: ProcessIdentity) -> bool:
    """Tell whether a living process was started by ``runner server`` or ``runner agent-runner`` and has no daemon."""
    try:
        words = Path(f"/proc/{identity.pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return FOREGROUND.encode() in words


def refuse_foreground(living: Mapping[str, ProcessIdentity]) -> None:
    """Refuse what is for a daemon where the living processes have none.

    Raises:
        NotRunningError: They run in the foreground, all of them; says who ends them.
    """
    if living and all(map(is_in_foreground, living.values())):
        names = ", ".join(f"{name} pid {identity.pid}" for name, identity in living.items())
        raise NotRunningError(
            f"no daemon is here; {names} runs in the foreground, as staging has it: whoever started it ends it"
        )


def remove_stale_files(state: StateDir) -> None:
    """Remove what a dead instance left; called under the lock only, so that nobody writes them now."""
    for name in named_processes(state):
        state.pid_file(name).unlink(missing_ok=True)
    state.endpoints.unlink(missing_ok=True)
    state.control_socket.unlink(missing_ok=True)
