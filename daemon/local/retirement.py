"""The end of agent-runners that a daemon is not to start any more: nobody else looks for what a killed one left."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from daemon.paths import StateDir
from sandbox.env import OWNER_MARKER
from sandbox.filesystem.removal_queue import discard_workspace
from sandbox.filesystem.workspace import Workspace
from sandbox.process_tree import kill_marked

CONTAINERS_NOTE = ".shared/used-container"
"""In a folder of workspaces: its agent-runner has used a container engine (``sandbox.several_kinds``)."""
REMOVAL_BOUND_S = 30.0

logger = logging.getLogger(__name__)


async def retire(state: StateDir, folders: Sequence[Path], env: Mapping[str, str]) -> None:
    """Kill the jobs of agent-runners, and have their workspaces removed.

    Called by the daemon at its start, under the lock of the state directory, before it takes over their spools: the
    attempts are run again, and must not run twice at once. Bounded by 5 s for each, and by 30 s for containers of all.

    Args:
        state: Whose they were.
        folders: Those of their workspaces, which need not exist: their names are ``agent-runner-N``.
        env: Of an agent-runner of this start, for the way to the container engine.
    """
    in_engine = [_label(state, folder) for folder in folders if (folder / CONTAINERS_NOTE).exists()]
    if in_engine:
        await asyncio.to_thread(_remove_containers, in_engine, env)
    for folder in folders:
        label = _label(state, folder)
        killed = await kill_marked(OWNER_MARKER, label, lambda _name: False)
        facts = {"agent_runner": folder.name, "killed": ", ".join(killed)}
        logger.info("An agent-runner is no more", extra={"action": "agent_runner_retired", **facts})
    there = [Workspace(folder, None) for folder in folders if folder.is_dir()]
    if there:
        # Beside the start, and given up with this process: a job may have left more files than a person waits for.
        threading.Thread(target=_discard, args=(there,), name="retirement", daemon=True).start()


def _label(state: StateDir, folder: Path) -> str:
    return f"{state.id}-{folder.name.rpartition('-')[2]}"


def _remove_containers(labels: Sequence[str], env: Mapping[str, str]) -> None:
    """Have another process do it: this one lives long, and is to be small."""
    argv = [sys.executable, "-P", "-m", "agent_runner.container_removal", *labels]
    try:
        done = subprocess.run(  # noqa: TID251 - one short child of ours, none of a job
            argv,
            cwd="/",
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=REMOVAL_BOUND_S,
            check=False,
        )
        why = done.stderr.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    if why:
        fields = {"action": "containers_kept", "labels": " ".join(labels), "why": why}
        logger.warning(
            "Containers of an agent-runner that is no more are left: see `runner gc`", extra=fields
        )


def _discard(folders: Sequence[Workspace]) -> None:
    for folder in folders:
        discard_workspace(folder)
