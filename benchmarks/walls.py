"""P8, P9: what the walls of the sandbox cost, against no walls and against bubblewrap alone."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from contextlib import ExitStack
from functools import partial

from benchmarks import floors
from benchmarks.client_process import ClientProcess
from benchmarks.goals import Goal, Group, Plan, Reading, UnavailableError
from benchmarks.installation import Installation
from benchmarks.throughput import PLAIN, jobs_seconds, reading
from sandbox.base import Network
from sandbox.env import JOB_ROOT
from sandbox.errors import SandboxError
from sandbox.filesystem import bubblewrap
from sandbox.filesystem.lanes import JOB_UIDS
from sandbox.filesystem.seccomp import program
from sandbox.filesystem.system_calls import this_machine
from sandbox.filesystem.system_files import EtcCopy
from sandbox.filesystem.tiers import IN_NAMESPACES
from sandbox.filesystem.trampoline import memory_file
from sandbox.filesystem.workspace import Workspace

GAP_S = 0.1


class Landlock(Group):
    """The Landlock tier against the plain one, both with two slots."""

    goals = (
        Goal("P8", "landlock jobs/s vs own plain, 2 slots", 0.6, 0.75, at_most=False),
        Goal("P8", "landlock p50 added, vs an idle plain spawn", 1.0, 0.5),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start both, and let each run some jobs."""
        self._client = stack.enter_context(ClientProcess())
        flags = (("--sandbox-tier", "landlock"), PLAIN)
        self._both = [
            stack.enter_context(Installation(self.plan, *tier, "--slots", "2")) for tier in flags
        ]
        for installation in self._both:
            jobs_seconds(self._client, installation, 50)

    def round(self) -> list[Reading]:
        """Throughput of both, then latency of both in turn."""
        jobs = self.plan.amount(300, 120)
        walled, plain = (jobs / jobs_seconds(self._client, one, jobs) for one in self._both)
        throughput = Reading(walled / plain, f"{walled:.0f}/s of {plain:.0f}/s")
        return [throughput, self._latency(self.plan.amount(30, 10))]

    def _latency(self, count: int) -> Reading:
        spawn = floors.idle_spawn_ms(count, GAP_S)
        targets = [installation.target for installation in self._both]
        found = self._client.ask(
            "latencies", targets=targets, argv=[floors.TRUE], count=count, gap_s=GAP_S
        )
        walled, plain = (statistics.median(times) * 1000 for times in found)
        detail = f"{walled:.1f} - {plain:.1f} ms, spawn {spawn:.2f} ms"
        return Reading((walled - plain) / spawn, detail)


class BareBubblewrap:
    """bubblewrap in front of a command, with the very options that the product gives it."""

    def __init__(self, plan: Plan, stack: ExitStack) -> None:
        root = plan.root / "bare"
        root.mkdir()
        root.chmod(0o711)
        uid = JOB_UIDS[0] if os.geteuid() == 0 else None
        # As the product does it: without a program in front.
        self._uid = uid
        etc = EtcCopy(root / "shared" / "etc")
        stack.callback(etc.remove)
        etc.begin()
        etc.refresh()
        workspace = Workspace(root / "workspace", uid)
        workspace.create()
        try:
            self._program = bubblewrap.trusted_program(bubblewrap.BWRAP)
        except SandboxError as error:
            raise UnavailableError(f"not available: {error}") from error
        machine = this_machine()
        self._filter = b"" if machine is None else program(machine, IN_NAMESPACES)
        own = bubblewrap.block(bubblewrap.workspace_options(workspace, Network.ON))
        own += bubblewrap.block(bubblewrap.command_options({"PATH": "/usr/bin:/bin"}, JOB_ROOT))
        for strict in (True, False):
            walls = bubblewrap.wall_options(etc.path, disable_userns=strict)
            self._options = bubblewrap.block(walls) + own
            if self._run().returncode == 0:
                return
        raise UnavailableError(f"not available: {self._run().stderr.decode().strip()}")

    def spawn(self) -> None:
        """Run one command that does nothing.

        Raises:
            CalledProcessError: It failed.
        """
        self._run().check_returncode()

    def _run(self) -> subprocess.CompletedProcess[bytes]:
        fd = memory_file("options", self._options)
        filter_fd = memory_file("filter", self._filter)
        try:
            argv = [
                self._program,
                "--args",
                str(fd),
                "--seccomp",
                str(filter_fd),
                "--",
                floors.TRUE,
            ]
            return subprocess.run(
                argv,
                env={},
                pass_fds=(fd, filter_fd),
                capture_output=True,
                check=False,
                user=self._uid,
                group=self._uid,
                extra_groups=None if self._uid is None else (),
            )
        finally:
            os.close(fd)
            os.close(filter_fd)


class Bubblewrap(Group):
    """The bubblewrap tier against bubblewrap alone."""

    goals = (
        Goal("P9", "bwrap jobs/s, 2 slots, vs bare bwrap in 2 threads", 0.6, 0.85, at_most=False),
        Goal("P9", "bwrap jobs/s, 8 slots, vs bare bwrap in 8 threads", 0.6, 0.85, at_most=False),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start one installation per number of slots, and let each run some jobs."""
        self._bare = BareBubblewrap(self.plan, stack)
        self._client = stack.enter_context(ClientProcess())
        tier = ("--sandbox-tier", "bwrap", "--slots")
        self._installations = {
            slots: stack.enter_context(Installation(self.plan, *tier, str(slots)))
            for slots in (2, 8)
        }
        for installation in self._installations.values():
            jobs_seconds(self._client, installation, 20)

    def round(self) -> list[Reading]:
        """Half of the bare ones, the jobs, the other half."""
        jobs = self.plan.amount(150, 60)
        return [self._ratio(slots, jobs) for slots in self._installations]

    def _ratio(self, slots: int, jobs: int) -> Reading:
        bare = partial(floors.rate, slots, jobs // 2, self._bare.spawn)
        before = bare()
        seconds = jobs_seconds(self._client, self._installations[slots], jobs)
        time.sleep(0.05)  # what the kernel still takes down
        return reading(jobs, seconds, statistics.harmonic_mean([before, bare()]))
