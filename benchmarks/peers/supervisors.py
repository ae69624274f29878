"""P21 to P23: other supervisors of processes, each with a home of its own."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from benchmarks import memory
from benchmarks.crash import Mark
from benchmarks.goals import Goal, Group, Plan, Reading
from benchmarks.installation import Installation
from benchmarks.peers import place
from benchmarks.peers.replacement import replacement_s
from benchmarks.peers.service import service
from benchmarks.resting import SETTLED_S, Resting
from benchmarks.throughput import PLAIN

_UP_S = 1.5
"""pm2 counts restarts of what was up for less than a second, and gives up after some."""


class Pm2:
    """A pm2 daemon; a context manager."""

    def __init__(self, plan: Plan) -> None:
        self._program = place.program("pm2")
        self._home = Path(tempfile.mkdtemp(prefix="pm2-", dir=plan.root))

    def __enter__(self) -> Self:
        self.run("ping")
        return self

    def __exit__(self, *_exc: object) -> None:
        self.run("kill")

    @property
    def pid(self) -> int:
        """Return the pid of the daemon."""
        return int((self._home / "pm2.pid").read_text())

    def start_sleep(self) -> int:
        """Start a child that does nothing; return its pid."""
        self.run("start", "/bin/sleep", "--interpreter", "none", "--name", "child", "--", "600")
        return int(self.run("pid", "child"))

    def run(self, *args: str) -> str:
        """Run one command of pm2 and return what it printed.

        Raises:
            RuntimeError: It failed.
        """
        env = {"PM2_HOME": str(self._home), "HOME": str(self._home), "PATH": place.PATH}
        done = subprocess.run(
            [self._program, *args],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"pm2 {args[0]}: {done.stderr.strip()[-300:]}")
        return done.stdout


class Start(Group):
    """From the command to the moment when what it starts works."""

    goals = (Goal("P21", "local start until ready, vs supervisord until its child runs", 0.5, 0.2),)

    def prepare(self, stack: ExitStack) -> None:
        """Start and stop once, so that token and database are there."""
        self._number = 0
        self._supervisord = place.program("supervisord")
        self._installation = stack.enter_context(Installation(self.plan))
        self._installation.stop()

    def round(self) -> list[Reading]:
        """Both in turn; medians."""
        own, peer = list[float](), list[float]()
        for _ in range(self.plan.amount(3, 2)):
            peer.append(self._peer_s())
            own.append(self._own_s())
        ours, theirs = statistics.median(own) * 1000, statistics.median(peer) * 1000
        return [Reading(ours / theirs, f"{ours:.0f} ms of {theirs:.0f} ms")]

    def _own_s(self) -> float:
        start = time.monotonic()
        self._installation.start()
        elapsed = time.monotonic() - start
        self._installation.stop()
        return elapsed

    def _peer_s(self) -> float:
        self._number += 1
        mark = Mark(self.plan, f"supervised-{self._number}")
        folder = Path(tempfile.mkdtemp(prefix="supervisor-", dir=self.plan.root))
        script, config = folder / "child", folder / "supervisord.conf"
        script.write_text(f"#!/bin/sh\n{mark.argv[-1]}\n")
        script.chmod(0o755)
        config.write_text(
            f"[supervisord]\nnodaemon=true\ndirectory={folder}\nlogfile={folder}/log\n"
            f"pidfile={folder}/pid\n{'user=root' if os.geteuid() == 0 else ''}\n"
            f"[program:child]\ncommand={script}\nstartsecs=0\n"
        )
        start = time.monotonic()
        argv = [self._supervisord, "-c", str(config)]
        with service(argv, folder / "output", lambda: mark.runs > 0):
            return time.monotonic() - start


class AgainstPm2(Resting):
    """P22 beside a daemon that is alive, instead of a number of another day."""

    goals = Resting.goals[:1]

    def prepare(self, stack: ExitStack) -> None:
        """Start both and wait until they rest."""
        self._pm2 = stack.enter_context(Pm2(self.plan))
        super().prepare(stack)

    def peer(self) -> tuple[float, str]:
        """Return the memory of the daemon."""
        return memory.shared_fairly_mb(self._pm2.pid)[0], "pm2"

    def round(self) -> list[Reading]:
        """Memory of both."""
        return [self.memory()[0]]


class Restart(Group):
    """kill -9 of a child that was up for a while, until its replacement has been executed."""

    goals = (
        Goal("P23", "job server killed until its replacement's exec, vs pm2", 2, 0.5),
        Goal("P23", "agent-runner killed until its replacement's exec, vs pm2", 2, 0.5),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start pm2 with a child."""
        self._pm2 = stack.enter_context(Pm2(self.plan))
        self._child = self._pm2.start_sleep()
        time.sleep(SETTLED_S)

    def round(self) -> list[Reading]:
        """The peer some times; the runner once per child, because a second death has to wait."""
        peer = []
        for _ in range(5):
            elapsed, self._child = replacement_s(self._pm2.pid, self._child)
            peer.append(elapsed)
            time.sleep(_UP_S)
        theirs = statistics.median(peer) * 1000
        with Installation(self.plan, *PLAIN) as installation:
            time.sleep(SETTLED_S)
            own = [self._own_ms(installation, name) for name in ("job-server", "agent-runner")]
        return [Reading(ms / theirs, f"{ms:.1f} ms of {theirs:.1f} ms") for ms in own]

    def _own_ms(self, installation: Installation, name: str) -> float:
        elapsed, _ = replacement_s(installation.pid("daemon"), installation.pid(name))
        time.sleep(SETTLED_S)
        return elapsed * 1000
