"""The files by which a running daemon is found, and their end."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daemon import VERSION
from daemon.paths import StateDir
from daemon.supervisor import pid_files


def retired_workspaces(state: StateDir, agent_runners: int) -> list[Path]:
    """Return the folders of workspaces of the numbered agent-runners that are no more, also of those that have only a spool.

    Called by the daemon before ``adopt_spools``. Almost always there is none.
    """
    found = set()
    for place in (state.spool, state.workspaces / "agent-runner"):
        for folder in place.parent.glob(f"{place.name}-*"):
            number = folder.name.removeprefix(f"{place.name}-")
            numbered = number.isascii() and number.isdecimal() and str(int(number)) == number
            if numbered and int(number) > agent_runners:
                found.add(state.workspaces / f"agent-runner-{number}")
    return sorted(found)


def adopt_spools(state: StateDir, agent_runners: int) -> None:
    """Give the spools of agent-runners that are no more to the first one; make those of the others.

    Called by the daemon before it starts them. A spool names its lease, so any agent-runner can deliver it.

    Raises:
        OSError: The state directory takes no change.
    """
    kept = {state.spool_of(number) for number in range(1, agent_runners + 1)}
    for folder in state.root.glob(f"{state.spool.name}-*"):
        if folder not in kept and folder.is_dir() and not folder.is_symlink():
            for file in folder.iterdir():
                file.rename(state.spool / file.name)
            folder.rmdir()
    for folder in kept:
        folder.mkdir(mode=0o700, exist_ok=True)


class SessionFiles:
    """``daemon.pid`` and ``endpoints.json`` of one run; the children's PID files are the supervisor's."""

    def __init__(self, state: StateDir, document: Mapping[str, Any], nonce: str) -> None:
        self._state = state
        self._document = document
        self._identity = pid_files.identify(os.getpid(), nonce)
        self.endpoints: dict[str, str | None] = {"tcp": None, "unix": f"unix:{state.server_socket}"}

    def open(self) -> None:
        """Write both, so that the control socket is found while the children still start.

        Raises:
            OSError: The state directory takes no file.
        """
        if self._identity is not None:
            pid_files.write(self._state.pid_file("daemon"), self._identity)
        self._write_endpoints()

    def server_ready(self, facts: Mapping[str, Any]) -> None:
        """Note where the job server listens; called once, when it is ready.

        Raises:
            OSError: As ``open``.
        """
        listen = facts.get("listen")
        self.endpoints["tcp"] = listen if isinstance(listen, str) and listen != "none" else None
        self._write_endpoints()

    def close(self) -> None:
        """Remove both. Idempotent."""
        self._state.endpoints.unlink(missing_ok=True)
        pid_files.remove(self._state.pid_file("daemon"), self._identity)

    def _write_endpoints(self) -> None:
        write_endpoints(self._state, self._document["mode"], self.endpoints)


def write_endpoints(state: StateDir, mode: str, endpoints: Mapping[str, str | None]) -> None:
    """Tell clients on this host where the job server listens.

    Raises:
        OSError: The state directory takes no file.
    """
    document = {
        "mode": mode,
        "endpoints": dict(endpoints),
        "control": str(state.control_socket),
        "version": VERSION,
    }
    # Not durable: it is worthless after a crash of the host, and made again at each start.
    content = json.dumps(document).encode() + b"\n"
    pid_files.replace_file(state.endpoints, content, durable=False)
