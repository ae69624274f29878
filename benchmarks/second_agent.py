"""Another agent-runner of an installation, started as its daemon starts its own."""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Self

from agent_runner.config import AgentRunnerConfig
from benchmarks.installation import Installation
from daemon.local.environment import child_environment
from daemon.supervisor.spawning import SpawnedChild, spawn

_READY_BOUND_S = 30.0
_LEAVE_BOUND_S = 10.0


class SecondAgent:
    """A context manager; ready when entered. It leaves, jobs and all, when its life pipe ends."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        # Not in the installation's own folder: its agent-runner removes what it does not know.
        self._root = Path(tempfile.mkdtemp(prefix="a-", dir=installation.root.parent))
        self._root.chmod(0o711)
        (self._root / "spool").mkdir(mode=0o700)

    def __enter__(self) -> Self:
        life_fd, self._life = os.pipe()
        self._lock = os.open(os.devnull, os.O_RDONLY)
        try:
            self._child = self._spawn(life_fd)
        finally:
            os.close(life_fd)
        self._await_ready()
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._life)
        self._child.process.end(_LEAVE_BOUND_S)
        for fd in (self._lock, self._child.ready_fd, self._child.output_fd):
            os.close(fd)
        shutil.rmtree(self._root, ignore_errors=True)

    def _spawn(self, life_fd: int) -> SpawnedChild:
        config = AgentRunnerConfig(
            name="another",
            endpoint=self._installation.target["endpoint"],
            spool_dir=self._root / "spool",
            workspace_dir=self._root / "workspaces" / "another",
            owner_label=f"bench-{os.getpid()}",
            sandbox_tier="plain",
            allow_unsandboxed=True,
        )
        payload = {"token": self._installation.target["token"], "secrets": {}}
        argv = [sys.executable, "-P", "-m", "agent_runner"]
        env = child_environment(self._installation.env, {}) | config.to_env()
        child = spawn(argv, env, life_fd)
        child.hand_over(json.dumps(payload).encode(), self._lock)
        return child

    def _await_ready(self) -> None:
        ready, _, _ = select.select([self._child.ready_fd], [], [], _READY_BOUND_S)
        answer = os.read(self._child.ready_fd, 1 << 16) if ready else b""
        if b'"ready"' not in answer:
            self.__exit__()
            raise RuntimeError(f"another agent-runner does not start: {answer.decode()}")
