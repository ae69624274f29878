"""The end of agent-runners that a daemon is not to start any more: nobody else looks for what a killed one left."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from daemon.paths import StateDir
from sandbox.env import OWNER_MARKER
from sandbox.filesystem.removal_queue import discard_workspace
from sandbox.filesystem.workspace import Workspace
from sandbox.process_tree import kill_marked

logger = logging.getLogger(__name__)


async def retire(state: StateDir, folders: Sequence[Path]) -> None:
    """Kill the jobs of agent-runners, and have their workspaces removed.

    Called by the daemon at its start, under the lock of the state directory, before it takes over their spools: the
    attempts are run again, and must not run twice at once. Bounded by 5 s for each.

    Args:
        state: Whose they were.
        folders: Those of their workspaces, which need not exist: their names are ``agent-runner-N``.
    """
    for folder in folders:
        label = f"{state.id}-{folder.name.rpartition('-')[2]}"
        killed = await kill_marked(OWNER_MARKER, label, lambda _name: False)
        facts = {"agent_runner": folder.name, "killed": ", ".join(killed)}
        logger.info("An agent-runner is no more", extra={"action": "agent_runner_retired", **facts})
    there = [Workspace(folder, None) for folder in folders if folder.is_dir()]
    if there:
        # Beside the start, and given up with this process: a job may have left more files than a person waits for.
        threading.Thread(target=_discard, args=(there,), name="retirement", daemon=True).start()


def _discard(folders: Sequence[Workspace]) -> None:
    for folder in folders:
        discard_workspace(folder)
