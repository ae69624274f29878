"""The first process of a container, where the engine runs on this host: the kernel tells its end 50 ms before an engine does."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sandbox import procfs
from sandbox.process import wait_gone


class FirstProcess:
    """A process with whose end every other one of its container has ended (pid_namespaces(7)). One per command."""

    def __init__(self, pidfd: int) -> None:
        self._pidfd = pidfd

    @classmethod
    def find(cls, container: str, pid: int) -> FirstProcess | None:
        """Return it; None unless it is certainly that of the container, and alive.

        The engine may count its processes in another namespace, or on another host. A control group with the id of the
        container is what only an engine of this one gives to a process, and 1 is the number of a first one in its own.

        Args:
            container: Its whole id.
            pid: What the engine calls it.
        """
        try:
            pidfd = os.pidfd_open(pid)
        except (OSError, ValueError):
            return None
        if _is_first_of(container, pid) and not procfs.ended([pidfd]):
            return cls(pidfd)
        os.close(pidfd)
        return None

    async def gone(self) -> None:
        """Wait for its end, and so for everybody's."""
        await wait_gone([self._pidfd], None)

    def close(self) -> None:
        """Forget it; nobody waits any more. Called once."""
        os.close(self._pidfd)


def _is_first_of(container: str, pid: int) -> bool:
    folder = Path("/proc", str(pid))
    try:
        groups, status = (folder / "cgroup").read_bytes(), (folder / "status").read_bytes()
    except OSError:
        return False
    # What it is called in each namespace, ours first.
    numbers = re.search(rb"^NSpid:((?:\t[0-9]+){2,})$", status, re.MULTILINE)
    return container.encode() in groups and numbers is not None and numbers[1].endswith(b"\t1")
