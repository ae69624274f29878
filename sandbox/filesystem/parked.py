"""A bubblewrap that has built its walls before there is a command, and how a command begins in it.

It is what a cold start makes, in two halves: namespaces, mounts, rights and the filter of system calls are put up when it is
parked; argument list, environment, working directory and limits, all that a job chooses, come when it is begun. Used once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from sandbox.base import ExecRequest
from sandbox.bounds.guard import Guard
from sandbox.errors import SandboxError
from sandbox.filesystem.aftermath import Aftermath
from sandbox.filesystem.bubblewrap_status import BubblewrapStatus
from sandbox.filesystem.call_list import CallList
from sandbox.filesystem.command import FilesystemCommand
from sandbox.filesystem.conclusion import HELD_PREFIXES, conclude_bubblewrap, conclude_parked
from sandbox.filesystem.gate import Gate
from sandbox.filesystem.latch import Latch
from sandbox.filesystem.namespace_tree import NamespaceTree
from sandbox.filesystem.system_calls import Machine
from sandbox.limits import Limits
from sandbox.output import OutputPump
from sandbox.process import ChildProcess, limit_options, limited
from sandbox.process_tree import LiveCommand


@dataclass(frozen=True, slots=True, eq=False)
class Bubblewrap:
    """A bubblewrap that was spawned: its process, and what it says."""

    child: ChildProcess
    status: BubblewrapStatus
    output_fd: int
    """The read end of the command's output; whoever follows the command closes it."""
    command: LiveCommand

    def tree(self) -> NamespaceTree:
        """Return its tree, which closes the status. Called once."""
        return NamespaceTree(self.child, self.status, self.command, asyncio.get_running_loop())


def follow(  # noqa: PLR0913 - the parts of one command, joined once
    process: Bubblewrap,
    request: ExecRequest,
    aftermath: Aftermath,
    *,
    guard: Guard | None = None,
    gate: Gate | None = None,
    parked: bool = False,
) -> FilesystemCommand:
    """Return the command of a bubblewrap. Called once per process; it takes over all of it.

    Args:
        process: It runs, or has just failed.
        request: What was asked for.
        aftermath: What is looked at once the last process is dead.
        guard: Keeps its bounds; None if it has none.
        gate: What it waits for before it begins; None if there is nothing.
        parked: Whether the walls were there before the command.
    """
    pump = OutputPump(process.output_fd, asyncio.get_running_loop(), held_prefixes=HELD_PREFIXES)
    conclude = conclude_parked if parked else conclude_bubblewrap
    return FilesystemCommand(
        child=process.child,
        pump=pump,
        tree=process.tree(),
        request=request,
        conclude=partial(conclude, request, process.status, pump),
        aftermath=aftermath,
        guard=guard,
        gate=gate,
    )


class Parked:
    """One of them. Made by ``BubblewrapLauncher.park``, then either begun or discarded. Used on its loop only."""

    def __init__(self, process: Bubblewrap, latch: Latch, machine: Machine) -> None:
        self._process = process
        self._latch = latch
        self._machine = machine
        self._limits = Limits()
        self._discarding: asyncio.Task[bool] | None = None

    @property
    def pid(self) -> int:
        """Return the process on the host whose descendants the slot is."""
        return self._process.child.pid

    def assign(self, name: str, limits: Limits) -> None:
        """Make it that of a sandbox. Called once, before ``begin``.

        Args:
            name: The sandbox.
            limits: Of each of its processes.
        """
        self._process.command.name = name
        self._limits = limits

    def is_ready(self) -> bool:
        """Tell whether its walls are up. It must not be assigned before: bubblewrap still goes by the names of its folders."""
        return self._latch.is_waiting()

    async def wait_dead(self) -> None:
        """Wait until it has ended by itself, which it never should."""
        await self._process.child.wait_exited()

    def begin(
        self, request: ExecRequest, env: Mapping[str, str], aftermath: Aftermath
    ) -> FilesystemCommand | None:
        """Let a command begin in it; None if it cannot, and a cold start is to say why. Called once at most."""
        if self._discarding is not None or not self._process.child.is_running():
            return None
        calls = CallList(self._machine)
        calls.empty_stdin()
        calls.change_directory(request.cwd)
        try:
            argv = limited(request.argv, limit_options(self._limits))
            calls.execute(argv, {**env, "PWD": request.cwd})  # as bubblewrap does it
            self._latch.lift(calls.finish())
        except (OSError, SandboxError):
            return None
        self._latch.close()
        self._process.command.begin()
        return follow(self._process, request, aftermath, parked=True)

    async def discard(self) -> bool:
        """Kill it instead of letting a command begin; tell whether it was seen dead. Idempotent; goes on when cancelled."""
        if self._discarding is None:
            self._discarding = asyncio.get_running_loop().create_task(self._discard())
        return await asyncio.shield(self._discarding)

    async def _discard(self) -> bool:
        tree = self._process.tree()
        try:
            survivors = await tree.kill()
            if self._process.child.has_exited:
                self._process.child.reap()
            return not survivors and tree.verified_dead()
        finally:
            tree.close()
            self._latch.close()
            os.close(self._process.output_fd)
