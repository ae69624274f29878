"""Says whose a folder of workspaces is, and whether its agent-runner lives: a file in it, with a lock that dies with the process.

Root's workspaces do not lie below the state directory, so what a killed installation left could not be told from what a
running one needs. Written by an agent-runner once per start; read by ``runner gc``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path

from agent_runner.config import AgentRunnerConfig

FOLDER = ".shared"
"""The folder beside the workspaces that its provider makes and removes."""
FILE = "claim"
_MAX_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Claim:
    """What a folder of workspaces says of its agent-runner."""

    state_dir: Path
    held: bool
    """Its agent-runner lives."""


def claim(config: AgentRunnerConfig) -> int:
    """Claim the folder of workspaces for as long as this process lives; return the descriptor that holds the claim.

    Called once per start, after ``SandboxProvider.probe`` has made the folder.

    Raises:
        OSError: The disk is full or broken.
    """
    folder = config.workspace_dir / FOLDER
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o711)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(folder / FILE, flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps({"state_dir": str(config.spool_dir.parent)}).encode(), 0)
    except OSError:
        os.close(fd)
        raise
    return fd


def read_claim(folder: Path) -> Claim | None:
    """Return the claim on a folder of workspaces; None if it has none that can be read."""
    try:
        fd = os.open(folder / FOLDER / FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        state_dir = Path(json.loads(os.pread(fd, _MAX_BYTES, 0))["state_dir"])
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Claim(state_dir, held=False)
        return Claim(state_dir, held=True)
    except (ValueError, TypeError, KeyError, OSError):
        return None
    finally:
        os.close(fd)
