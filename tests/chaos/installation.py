"""An installation under attack: ends only processes that it started, by their identity, and starts them again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from daemon.supervisor import pid_files
from tests.chaos import fault_points
from tests.chaos.client import Client, Watcher, token_in
from tests.chaos.job_mix import CANARY, SECRET, PlannedJob
from tests.chaos.oracle import Verdict, judge
from tests.chaos.witness import Witness
from tests.e2e.instance import Instance
from tests.waiting import wait_until

DAEMON, SERVER, AGENT = PROCESSES = ("daemon", "job-server", "agent-runner")
GONE_S = 10.0
"""What DESIGN §2 gives the children of a dead daemon."""
FAULT_POINTS = Path(next(iter(fault_points.__path__))) / "sitecustomize.py"


class Installation:
    """A running installation with a witness, a client and a watcher; a context manager."""

    def __init__(self, *flags: str, faults: bool = False) -> None:
        # Not below pytest's own folder: its path would leave no room for a socket's name.
        self.instance = Instance(Path(tempfile.mkdtemp(prefix="runner-chaos-")))
        self.instance.extra_env[SECRET] = CANARY
        self.kills: Counter[str] = Counter()
        self.starts = 0
        self._kept = False
        self._flags = ("--secret", SECRET, *flags)
        self._faults = self.instance.root / "faults"
        if faults:
            self._faults.mkdir()
            shutil.copy(FAULT_POINTS, self._faults)
            self.instance.extra_env["PYTHONPATH"] = str(self._faults)

    def __enter__(self) -> Self:
        self.witness = Witness()
        try:
            self.start()
            endpoints = json.loads((self.state / "endpoints.json").read_bytes())
            self.client = Client(endpoints["endpoints"]["unix"], token_in(self.state))
            self.watcher = Watcher(self.client)
        except BaseException:
            self.instance.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.watcher.close()
        self.client.close()
        for process in PROCESSES:  # one that was left stopped could not be ended
            self.signal(process, signal.SIGCONT)
        self.instance.stop()
        self.witness.close()
        if kind is None and not self._kept:
            shutil.rmtree(self.instance.root)

    @property
    def state(self) -> Path:
        return self.instance.state

    def keep(self) -> Path:
        """Leave the files for whoever wants to know more; return where they are."""
        self._kept = True
        return self.instance.root

    def start(self) -> None:
        self.instance.start(*self._flags)
        self.starts += 1

    def pid(self, process: str) -> int | None:
        """Return the pid of a process that lives now, as its PID file names it."""
        identity = pid_files.read(self.state / f"{process}.pid")
        # Not one that is only a zombie: of a subreaper, as this process may be one, nobody takes it away.
        return identity.pid if identity is not None and pid_files.verify(identity) else None

    def wait_pid(self, process: str, but_not: int | None = None) -> int:
        """Wait until a process lives, and is another one than before."""

        def other() -> int | None:
            pid = self.pid(process)
            return pid if pid != but_not else None

        return wait_until(other, 45, self.instance.tails) or 0

    def signal(self, process: str, number: int) -> int | None:
        """Signal one of our three processes; None if it is not there. Its identity is checked while it is held."""
        pid = self.pid(process)
        if pid is None:
            return None
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        try:
            if self.pid(process) != pid:
                return None
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)
        return pid

    def kill(self, *processes: str) -> None:
        """End processes with SIGKILL, one directly after the other; start again if the daemon was among them."""
        killed = [process for process in processes if self.signal(process, signal.SIGKILL)]
        self.kills.update(killed)
        self.recover(killed)

    def recover(self, killed: list[str]) -> None:
        """Do what a person would do after these died."""
        if DAEMON in killed:
            # Every other time at once: `start` itself waits for those that are still leaving.
            if self.starts % 2:
                self.instance.wait_gone(GONE_S)
            self.start()

    @contextlib.contextmanager
    def armed(self, point: str, moment: str, *victims: str) -> Iterator[None]:
        """Let a fault point kill during the block, wait until it has, and recover."""
        plan = {"point": point, "moment": moment, "victims": victims, "state": str(self.state)}
        before = {process: self.pid(process) for process in victims}
        waiting = self._faults / "waiting.json"
        waiting.write_text(json.dumps(plan))
        waiting.rename(self._faults / "armed.json")
        yield
        fired = self._faults / "fired.json"
        wait_until(fired.exists, 60, lambda: f"{plan} never fired\n{self.instance.tails()}")
        wait_until(
            lambda: all(self.pid(process) != pid for process, pid in before.items()), 30, str(plan)
        )
        fired.unlink()
        self.kills.update(victims)
        self.recover(list(victims))

    def submit(self, job: PlannedJob) -> str:
        job.job_id = self.client.submit(job.request(self.witness)).id
        return job.job_id

    def stop_for(self, process: str, seconds: float) -> None:
        """Let a process stand still for a while."""
        pid = self.signal(process, signal.SIGSTOP)
        time.sleep(seconds)
        assert self.signal(process, signal.SIGCONT) == pid, "somebody ended a frozen process"

    def wait_ready(self) -> None:
        """Wait until all three run; what an earlier one left behind has been settled then."""

        def ready() -> bool:
            return all(
                p["state"] == "RUNNING" for p in self.instance.status()["processes"].values()
            )

        wait_until(ready, 60, self.instance.tails)

    def judge(
        self, jobs: list[PlannedJob], *, freezes: Sequence[tuple[float, float]] = ()
    ) -> Verdict:
        """Wait until every job has ended, stop, and return what the oracle found."""
        self.wait_ready()
        for job in jobs:
            self.client.wait(job.job_id, 120)
        wait_until(lambda: not self.witness.living(), 30, lambda: str(self.witness.living()))
        ids = {job.job_id for job in jobs}
        wait_until(lambda: ids <= self.watcher.ended(), 30, "the events of every end")
        verdict = judge(self.client, jobs, self.witness, self.watcher, freezes)
        self._judge_remains(verdict)
        return verdict

    def _judge_remains(self, verdict: Verdict) -> None:
        done = self.instance.run("local", "stop")
        if done.returncode != 0:
            verdict.object(f"`local stop` failed: {done.stderr.decode()}")
        try:
            self.instance.wait_gone()
        except AssertionError as error:
            verdict.object(f"processes were left: {error}")
        for what, left in (
            ("workspaces", self.instance.workspaces()),
            ("spool files", self.instance.spooled()),
            ("files with the secret", self.instance.files_with(CANARY.encode())),
        ):
            if left:
                verdict.object(f"{what} were left: {left[:5]}")
