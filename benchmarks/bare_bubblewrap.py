"""bubblewrap by hand: what the walls cost without anything of ours around them."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import floors
from benchmarks.goals import UnavailableError
from sandbox.base import Network
from sandbox.env import JOB_ROOT
from sandbox.errors import SandboxError
from sandbox.filesystem import bubblewrap, rights
from sandbox.filesystem.call_list import CallList
from sandbox.filesystem.lanes import JOB_UIDS
from sandbox.filesystem.seccomp import program
from sandbox.filesystem.system_calls import this_machine
from sandbox.filesystem.system_files import EtcCopy
from sandbox.filesystem.tiers import IN_NAMESPACES
from sandbox.filesystem.trampoline import Trampoline, memory_file
from sandbox.filesystem.workspace import Workspace


class BareBubblewrap:
    """bubblewrap in front of a command, with the very options that the product gives it."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        """Make what it needs in a folder, and try it.

        Args:
            root: Made here; others must be able to pass through what is above it.
            stack: Takes back what is elsewhere.

        Raises:
            UnavailableError: bubblewrap is missing, or does not work here.
        """
        root.mkdir()
        root.chmod(0o711)
        uid = JOB_UIDS[0] if os.geteuid() == 0 else None
        # As the product does it: without a program in front.
        self._uid = uid
        self._trampoline = Trampoline()
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

    def spawn_least(self, *, walls: bool = True) -> None:
        """Do the same, or without bubblewrap, with the least that can be between two programs: no fork, nothing looked after.

        Raises:
            RuntimeError: It failed.
        """
        calls = CallList(self._trampoline.machine)
        if self._uid is not None:
            rights.become(calls, self._uid)
        read_fd, write_fd = os.pipe()
        status_read, status_write = os.pipe()
        fds = (*self._inputs(), status_write)
        try:
            calls.empty_stdin()
            calls.close_all_but(fds if walls else ())
            calls.execute(self._argv(*fds) if walls else [floors.TRUE], {})
            pid = self._trampoline.spawn(calls.finish(), output_fd=write_fd, kept=fds)
        finally:
            for fd in (*fds, write_fd):
                os.close(fd)
        with os.fdopen(read_fd, "rb") as output, os.fdopen(status_read, "rb"):
            said = output.read()
            failed = os.waitpid(pid, 0)[1] != 0
        if failed:
            raise RuntimeError(said.decode())

    def idle_least_ms(self, count: int, gap_s: float) -> tuple[float, float]:
        """Return the median times of ``spawn_least`` with and without walls, in turn, on a system that was idle before."""
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(count):
            for found, walls in zip(times, (True, False), strict=True):
                time.sleep(gap_s)
                start = time.perf_counter()
                self.spawn_least(walls=walls)
                found.append(time.perf_counter() - start)
        with_walls, without = (statistics.median(found) * 1000 for found in times)
        return with_walls, without

    def _inputs(self) -> tuple[int, int]:
        return memory_file("options", self._options), memory_file("filter", self._filter)

    def _argv(self, options_fd: int, filter_fd: int, status_fd: int | None = None) -> list[str]:
        fds = ["--args", str(options_fd), "--seccomp", str(filter_fd)]
        if status_fd is not None:
            fds += ["--json-status-fd", str(status_fd)]
        return [self._program, *fds, "--", floors.TRUE]

    def _run(self) -> subprocess.CompletedProcess[bytes]:
        fds = self._inputs()
        try:
            return subprocess.run(
                self._argv(*fds),
                env={},
                pass_fds=fds,
                capture_output=True,
                check=False,
                user=self._uid,
                group=self._uid,
                extra_groups=None if self._uid is None else (),
            )
        finally:
            for fd in fds:
                os.close(fd)
