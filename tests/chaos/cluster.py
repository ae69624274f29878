"""One job server and any number of agent-runners without a daemon, each started as the daemon starts its own.

What a test wants that `runner local` has no words for: several agent-runners, and a lease that ends within seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent_runner.config import AgentRunnerConfig
from daemon.server.config import ServerConfig
from daemon.supervisor.spawning import SpawnedChild, spawn
from tests.chaos.client import Client, Watcher
from tests.chaos.job_mix import CANARY, SECRET, PlannedJob
from tests.chaos.oracle import Verdict, judge
from tests.chaos.witness import Witness
from tests.waiting import wait_until

TOKEN = "token-of-a-cluster"
SERVER = "job-server"
READY_S = 60.0
END_S = 60.0


class Cluster:
    """A context manager; the processes are children of this one and named ``job-server``, ``agent-1``, …"""

    def __init__(self, agents: int, *, slots: int = 2, lease_s: float = 30.0) -> None:
        # Below /var/tmp, because the unprivileged user of root's sandboxes must reach the workspaces.
        self.root = Path(tempfile.mkdtemp(prefix="runner-chaos-", dir="/var/tmp"))
        self.root.chmod(0o711)
        self.agents = [f"agent-{number}" for number in range(1, agents + 1)]
        self._slots = slots
        self._config = ServerConfig(
            database=self.root / "runner.db",
            log_dir=self.root / "job-logs",
            socket=self.root / "run" / "s",
            listen="none",
            lease_s=lease_s,
            renew_s=lease_s / 3,
        )
        self._life, self._our_life = os.pipe()
        self._lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT)
        self._children: dict[str, SpawnedChild] = {}
        self._drains: dict[str, threading.Thread] = {}
        self._logged: defaultdict[str, bytearray] = defaultdict(bytearray)

    def __enter__(self) -> Self:
        self.witness = Witness()
        try:
            self.start(SERVER, *self.agents)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.client = Client(f"unix:{self._config.socket}", TOKEN)
        self.watcher = Watcher(self.client)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if hasattr(self, "watcher"):
            self.watcher.close()
            self.client.close()
        for process in list(self._children):
            self.kill(process)
        self.witness.close()
        for fd in (self._life, self._our_life, self._lock):
            os.close(fd)
        if kind is None:
            shutil.rmtree(self.root)

    def start(self, *processes: str) -> None:
        """Start processes side by side and wait until each is ready."""
        for process in processes:
            payload = {"token": TOKEN, "secrets": {SECRET: CANARY}}
            module = "daemon.server" if process == SERVER else "agent_runner"
            config: Any = self._config if process == SERVER else self._agent_config(process)
            env = {"PATH": os.environ["PATH"], "HOME": str(self.root), **config.to_env()}
            child = spawn([sys.executable, "-P", "-m", module], env, self._life)
            child.hand_over(json.dumps(payload).encode(), self._lock)
            self._children[process] = child
            self._drain(process)
        for process in processes:
            answer = self._answer(self._children[process])
            assert "ready" in answer, (process, answer, self.output(process))

    def signal(self, process: str, number: int) -> None:
        """Signal a child; it is ours and not reaped, so its pid is its own."""
        self._children[process].process.send_signal(number)

    def kill(self, process: str) -> None:
        """End a process with SIGKILL; nobody starts it again."""
        child = self._children.pop(process)
        child.process.kill()
        child.process.wait()
        self._drains.pop(process).join()
        for fd in (child.ready_fd, child.output_fd):
            os.close(fd)

    def stop(self, process: str) -> None:
        """Ask a process to leave in good order and wait until it has."""
        self.signal(process, signal.SIGTERM)
        child = self._children[process]
        wait_until(lambda: child.process.poll() is not None, END_S, lambda: f"{process} stays")
        self.kill(process)

    def output(self, process: str) -> str:
        """Return what a process and those before it under this name have logged."""
        return self._logged[process].decode(errors="replace")

    def submit(self, job: PlannedJob) -> str:
        job.job_id = self.client.submit(job.request(self.witness)).id
        return job.job_id

    def wait_output(self, job: PlannedJob) -> None:
        """Wait until the server has some of what a job's first attempt prints."""
        wait_until(lambda: self.witness.of(job.job_id), 60, "a run")
        wait_until(lambda: len(self.client.log(job.job_id, 1)[0]) > 30, 60, "output")

    def judge(
        self, jobs: list[PlannedJob], *, freezes: tuple[tuple[float, float], ...] = ()
    ) -> Verdict:
        """Wait until every job has ended, stop the agent-runners, and return what the oracle found."""
        ids = {job.job_id for job in jobs}
        wait_until(lambda: ids <= self.watcher.ended(), 120, "the events of every end")
        wait_until(lambda: not self.witness.living(), 30, lambda: str(self.witness.living()))
        verdict = judge(self.client, jobs, self.witness, self.watcher, freezes)
        for process in self.agents:
            self.stop(process)
        for folder in ("spool", "workspaces"):
            left = [str(path) for path in (self.root / folder).glob("*/*")]
            if left:
                verdict.object(f"{folder} were left: {left[:5]}")
        return verdict

    def _agent_config(self, name: str) -> AgentRunnerConfig:
        spool = self.root / "spool" / name
        workspaces = self.root / "workspaces"
        spool.mkdir(parents=True, exist_ok=True)
        workspaces.mkdir(mode=0o711, exist_ok=True)
        return AgentRunnerConfig(
            name=name,
            endpoint=f"unix:{self._config.socket}",
            spool_dir=spool,
            workspace_dir=workspaces / name / "w",
            owner_label=f"{self.root.name}-{name}",
            slots=self._slots,
            cancel_grace_s=2.0,
        )

    def _drain(self, process: str) -> None:
        """Read what a process logs, as the daemon does: a full pipe would hold it up."""
        fd = self._children[process].output_fd
        os.set_blocking(fd, True)

        def read() -> None:
            while piece := os.read(fd, 1 << 16):
                self._logged[process] += piece

        self._drains[process] = threading.Thread(target=read, daemon=True)
        self._drains[process].start()

    def _answer(self, child: SpawnedChild) -> dict[str, Any]:
        line = b""

        def answered() -> bool:
            nonlocal line
            with contextlib.suppress(BlockingIOError):
                line += os.read(child.ready_fd, 1 << 16)
            return line.endswith(b"\n") or child.process.poll() is not None

        wait_until(answered, READY_S, "a process that is ready")
        answer: dict[str, Any] = json.loads(line or b"{}")
        return answer
