"""What a process in the foreground does where a child of the daemon tells the daemon."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent_runner.handover import Handover
from daemon.local.service_manager import notify
from daemon.local.session_files import write_endpoints
from daemon.local.state_watch import await_loss
from daemon.paths import StateDir
from daemon.supervisor import pid_files


class ServiceHandover(Handover):
    """Tells the service manager, and keeps the files by which clients on this host find a job server. One per process."""

    def __init__(self, received: Handover, role: str) -> None:
        """Take what was received, and the name of the PID file."""
        super().__init__(payload=received.payload, life_fd=-1, _ready_fd=-1)
        service = received.payload["service"]
        self.state = StateDir(Path(service["root"]), Path(service["runtime"]))
        self._pid_file = self.state.pid_file(role)
        self._identity = pid_files.read(self._pid_file)
        self._notify_socket = str(service["notify_socket"])
        self._stopping = False

    def ready(self, facts: Mapping[str, Any]) -> None:
        """Say that this process works; called once. A server's ``facts`` tell where it listens."""
        if "socket" in facts:
            tcp = None if facts["listen"] == "none" else str(facts["listen"])
            endpoints = {"tcp": tcp, "unix": f"unix:{facts['socket']}"}
            write_endpoints(self.state, str(self.payload["mode"]), endpoints)
        notify(self._notify_socket, "READY=1\nSTATUS=ready")

    def failed(self, message: str) -> None:
        """Say why this process leaves; it stands in its log, too."""
        notify(self._notify_socket, f"STATUS={message}")

    def status(self, text: str) -> None:
        """Say in one line how things are."""
        notify(self._notify_socket, f"STATUS={' '.join(text.split())}")

    def stopping(self) -> None:
        """Say that this process begins to leave."""
        if not self._stopping:
            self._stopping = True
            notify(self._notify_socket, "STOPPING=1")

    async def lost(self) -> None:
        """Return when the state directory was removed or replaced below this process; a missing token file is made again."""
        lock_fd = os.open(self.state.lock, os.O_RDONLY | os.O_CLOEXEC)
        try:
            await await_loss(self.state, str(self.payload["token"]), lock_fd, 0)
        finally:
            os.close(lock_fd)

    def close(self) -> None:
        """Remove the files; called last, under the lock. Those in a state directory that was replaced are another's."""
        if pid_files.read(self._pid_file) == self._identity:
            self.state.endpoints.unlink(missing_ok=True)
            pid_files.remove(self._pid_file, self._identity)
