"""How each tier starts one command: what is prepared per provider, per sandbox, and per command."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sandbox.base import ExecRequest
from sandbox.bounds.guard import Guard
from sandbox.ended_command import EndedCommand
from sandbox.env import JOB_ROOT
from sandbox.errors import SandboxError
from sandbox.filesystem import bubblewrap, rights
from sandbox.filesystem.aftermath import Aftermath
from sandbox.filesystem.bubblewrap_status import BubblewrapStatus
from sandbox.filesystem.call_list import CallList, Step
from sandbox.filesystem.checkouts import NO_CHECKOUTS, Checkouts
from sandbox.filesystem.command import FilesystemCommand
from sandbox.filesystem.conclusion import HELD_PREFIXES, conclude_restricted, not_spawned
from sandbox.filesystem.gate import Gate, gate_for
from sandbox.filesystem.landlock import AbstractSocketScope
from sandbox.filesystem.latch import Latch
from sandbox.filesystem.parked import Bubblewrap, Parked, follow
from sandbox.filesystem.spawner import Spawner
from sandbox.filesystem.terms import Terms
from sandbox.filesystem.trampoline import memory_file
from sandbox.filesystem.walls import LandlockWalls
from sandbox.filesystem.workspace import Workspace
from sandbox.output import OutputPump, open_output_pipe
from sandbox.process import ChildProcess, limit_options, limited
from sandbox.process_tree import SweptTree, count_processes, forget, register


class BubblewrapLauncher:
    """Starts the commands of one sandbox in the bubblewrap tier."""

    def __init__(  # noqa: PLR0913  # what the commands of one sandbox share
        self,
        *,
        spawner: Spawner,
        calls: CallList,
        scope: AbstractSocketScope,
        walls: bytes,
        filter_program: bytes,
        workspace: Workspace,
        terms: Terms,
    ) -> None:
        """Prepare what all commands of the sandbox begin with.

        Args:
            spawner: Starts them.
            calls: What bubblewrap of this user begins with; see ``beginning``.
            scope: Rules that bubblewrap is behind.
            walls: Options that are the same for every sandbox.
            filter_program: Of system calls, for the command and all its descendants.
            workspace: The folders.
            terms: What the job may reach and take.
        """
        self._spawner = spawner
        self._scope = scope
        self._filter = filter_program
        self._workspace = workspace
        self._terms = terms
        self._limits = terms.bounds.process_limits()
        self._walls = walls
        self._folders = self._bound(NO_CHECKOUTS)
        """The options of a command but for its own."""
        self._calls = calls

    @staticmethod
    def beginning(shared: CallList, scope: AbstractSocketScope, uid: int | None) -> CallList:
        """Return what bubblewrap begins with for one user, in all sandboxes of the user.

        Args:
            shared: What every bubblewrap gives up.
            scope: Rules that it is behind.
            uid: The user; None for that of this process.
        """
        calls = shared.copy()
        if uid is not None:
            rights.become(calls, uid)
        rights.gain_nothing(calls)
        rights.share_files(calls)
        if scope.fd >= 0:
            calls.must(Step.WALLS, "landlock_restrict_self", scope.fd, 0)
        return calls

    async def start(
        self, request: ExecRequest, env: Mapping[str, str], aftermath: Aftermath
    ) -> FilesystemCommand | EndedCommand:
        """Spawn bubblewrap from the thread of the loop, which its death signal is tied to."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as undo:
            try:
                with contextlib.ExitStack() as given:
                    status_read, status_write = _pipe(os.pipe, undo, given)
                    output_read, output_write = _pipe(open_output_pipe, undo, given)
                    gate = gate_for(self._terms, self._workspace.job_uid, env)
                    if gate is not None:
                        undo.callback(gate.abandon)
                        env = {**gate.env, **env}
                    guard = _guard(self._terms, self._workspace)
                    if guard is not None:
                        undo.callback(guard.abandon)
                    command = register(self._workspace.name)
                    undo.callback(forget, command)
                    command.leader = self._spawn(
                        limited(request.argv, limit_options(self._limits)),
                        self._options(request.cwd, env, aftermath.checkouts),
                        (status_write, _output(request, output_write)),
                        guard=guard,
                        gate=gate,
                        stdin=request.stdin,
                    )
                child = ChildProcess(command.leader, loop)
            except (OSError, SandboxError) as error:
                return not_spawned(error)
            undo.pop_all()
        status = BubblewrapStatus(status_read, loop)
        process = Bubblewrap(child, status, output_read, command)
        started = follow(process, request, aftermath, guard=guard, gate=gate)
        return started if gate is None else await _past(gate, status, started)

    def park(self, env: Mapping[str, str]) -> Parked:
        """Spawn a bubblewrap that builds the walls and waits for its command, on the thread of the loop as ``start`` does.

        Called for a sandbox without bounds and without what a ``Gate`` is for: nothing may depend on the command but what
        is inside the walls.

        Args:
            env: Marks by which leftovers are found.

        Raises:
            OSError: The host has no process, descriptor or memory for it now.
            SandboxBrokenError: It cannot be watched; it is dead then.
        """
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as undo:
            with contextlib.ExitStack() as given:
                status_read, status_write = _pipe(os.pipe, undo, given)
                output_read, output_write = _pipe(open_output_pipe, undo, given)
                latch = Latch(self._spawner.trampoline)
                undo.callback(latch.close)
                command = register(self._workspace.name)
                undo.callback(forget, command)
                options = self._options(JOB_ROOT, env, NO_CHECKOUTS)
                pipes = (status_write, output_write)
                command.leader = self._spawn([latch.program], options, pipes, latch=latch)
                latch.spawned()
            child = ChildProcess(command.leader, loop)
            undo.pop_all()
        command.has_begun = False
        status = BubblewrapStatus(status_read, loop)
        process = Bubblewrap(child, status, output_read, command)
        return Parked(process, latch, self._spawner.machine)

    def _options(self, cwd: str, env: Mapping[str, str], checkouts: Checkouts) -> bytes:
        folders = self._folders if checkouts == NO_CHECKOUTS else self._bound(checkouts)
        return folders + bubblewrap.block(bubblewrap.command_options(env, cwd))

    def _bound(self, checkouts: Checkouts) -> bytes:
        return self._walls + bubblewrap.block(
            bubblewrap.workspace_options(self._workspace, self._terms.namespace, checkouts)
        )

    def _spawn(  # noqa: PLR0913 - what is different for each command
        self,
        argv: Sequence[str],
        options: bytes,
        pipes: tuple[int, int],
        *,
        guard: Guard | None = None,
        gate: Gate | None = None,
        latch: Latch | None = None,
        stdin: int | None = None,
    ) -> int:
        status_fd, output_fd = pipes
        # Limits are set inside, by ``argv``: bubblewrap is not bound by them, and the kernel counts the processes of a
        # user namespace by themselves.
        made: list[int] = []
        try:
            made.append(args_fd := memory_file("arguments", options))
            made.append(filter_fd := memory_file("filter", self._filter))  # it is read to its end
            kept: tuple[int, ...] = (args_fd, status_fd, filter_fd)
            fds = ["--args", str(args_fd), "--json-status-fd", str(status_fd)]
            fds += ["--seccomp", str(filter_fd)]
            if gate is not None:
                kept = (*kept, gate.closed_fd)
                fds += ["--block-fd", str(gate.closed_fd)]
            calls = self._calls.copy()
            doors = [] if guard is None else _enter_groups(calls, guard)
            made += doors
            given = _take_stdin(calls, stdin if latch is None else latch.stdin_fd)
            if latch is not None:
                kept = (*kept, *latch.kept)
            calls.close_all_but(kept)
            kept = (*kept, *given)
            calls.execute([bubblewrap.BWRAP, *fds, "--", *argv], {})
            if self._scope.fd >= 0:
                kept = (*kept, self._scope.fd)
            return self._spawner.spawn(calls, output_fd=output_fd, kept=(*kept, *doors))
        finally:
            for fd in made:
                os.close(fd)


class RestrictedLauncher:
    """Starts the commands of one sandbox in the Landlock and plain tiers."""

    def __init__(  # noqa: PLR0913  # what the commands of one sandbox share
        self,
        *,
        spawner: Spawner,
        calls: CallList,
        workspace: Workspace,
        walls: LandlockWalls | None,
        filter_program: bytes | None,
        terms: Terms,
    ) -> None:
        """Prepare what all commands of the sandbox have in common.

        Args:
            spawner: Starts them.
            calls: What every command of this user begins with; see ``beginning``.
            workspace: The folders.
            walls: The Landlock rules, or None for none.
            filter_program: Of system calls, or None for none.
            terms: What the job may reach and take.
        """
        self._spawner = spawner
        self._calls = calls
        self._workspace = workspace
        self._walls = walls
        self._filter = filter_program
        self._terms = terms
        self._limits = terms.bounds.process_limits()

    @staticmethod
    def beginning(shared: CallList, uid: int | None) -> CallList:
        """Return what the commands of one user begin with, for all sandboxes of the user.

        Args:
            shared: What every command gives up.
            uid: The user; None for that of this process.
        """
        calls = shared.copy()
        if uid is not None:
            rights.become(calls, uid)
        rights.die_with_parent(calls)
        rights.gain_nothing(calls)
        rights.share_files(calls)
        calls.empty_stdin()
        return calls

    async def start(
        self, request: ExecRequest, env: Mapping[str, str], aftermath: Aftermath
    ) -> FilesystemCommand | EndedCommand:
        """Spawn the command itself, behind the walls that it puts around itself before it is the command."""
        try:
            guard = _guard(self._terms, self._workspace)
            try:
                return self._begun(request, env, aftermath, guard)
            except BaseException:
                if guard is not None:
                    guard.abandon()
                raise
        except (OSError, SandboxError) as error:
            return not_spawned(error)

    def _begun(
        self,
        request: ExecRequest,
        env: Mapping[str, str],
        aftermath: Aftermath,
        guard: Guard | None,
    ) -> FilesystemCommand:
        loop = asyncio.get_running_loop()
        output_read, output_write = open_output_pipe()
        command = register(self._workspace.name, self._workspace.job_uid)
        try:
            output = _output(request, output_write)
            command.leader = self._spawn(request, env, output, guard)
            child = ChildProcess(command.leader, loop)
        except BaseException:
            forget(command)
            os.close(output_read)
            raise
        finally:
            os.close(output_write)
        pump = OutputPump(output_read, loop, held_prefixes=HELD_PREFIXES)
        return FilesystemCommand(
            child=child,
            pump=pump,
            tree=SweptTree(child, command, loop),
            request=request,
            conclude=partial(conclude_restricted, request, pump),
            aftermath=aftermath,
            guard=guard,
        )

    def _spawn(
        self, request: ExecRequest, env: Mapping[str, str], output_fd: int, guard: Guard | None
    ) -> int:
        uid = self._workspace.job_uid
        counted = count_processes(uid) if self._limits.pids is not None else 0
        argv = limited(request.argv, limit_options(self._limits, process_count=counted))
        calls = self._calls.copy()
        if request.stdin is not None:
            calls.replace_stdin(request.stdin)
        calls.change_directory(request.cwd)
        made: list[int] = []
        try:
            if guard is not None:
                made += _enter_groups(calls, guard)
            if self._walls is not None:
                ruleset = self._walls.ruleset(self._workspace, self._terms.network)
                made.append(ruleset.fd)
                calls.must(Step.WALLS, "landlock_restrict_self", ruleset.fd, 0)
            calls.close_all_but(())
            if self._filter is not None:
                rights.filter_calls(calls, self._filter)
            calls.execute(argv, env)
            kept = made if request.stdin is None else [*made, request.stdin]
            return self._spawner.spawn(calls, output_fd=output_fd, kept=kept)
        finally:
            for fd in made:
                os.close(fd)


def _guard(terms: Terms, workspace: Workspace) -> Guard | None:
    """Return what keeps the bounds of the next command; None if there are none."""
    if not terms.bounds.kept:
        return None
    return terms.bounds.guard(workspace.name, (workspace.job, workspace.home, workspace.tmp))


def _take_stdin(calls: CallList, fd: int | None) -> tuple[int, ...]:
    """Have a process read from a descriptor, or from nothing; return what it needs for that until then."""
    if fd is None:
        calls.empty_stdin()
        return ()
    calls.replace_stdin(fd)
    return (fd,)


def _output(request: ExecRequest, pipe: int) -> int:
    """Return what a command writes to: the terminal that it has, or the pipe."""
    return pipe if request.stdin is None or not os.isatty(request.stdin) else request.stdin


def _enter_groups(calls: CallList, guard: Guard) -> list[int]:
    """Have a process begin in its control groups; return the descriptors that this takes, which the caller closes."""
    doors = guard.open_doors()
    calls.begin_in_groups(doors)
    return doors


async def _past(
    gate: Gate, status: BubblewrapStatus, started: FilesystemCommand
) -> FilesystemCommand | EndedCommand:
    """Let a command go once what it needs outside is there; one that cannot have it ends before it began."""
    try:
        await gate.open(status, started.show)
    except SandboxError as error:
        if started.has_exited:  # it was stopped meanwhile, or bubblewrap failed: it tells so itself
            return started
        await started.kill()
        started.discard_output()
        return EndedCommand(error)
    except BaseException:
        await started.kill()  # nobody knows of it
        raise
    return started


def _pipe(
    make: Callable[[], tuple[int, int]], undo: contextlib.ExitStack, given: contextlib.ExitStack
) -> tuple[int, int]:
    """Make a pipe; ``undo`` closes the read end, ``given`` the write end."""
    read_fd, write_fd = make()
    undo.callback(os.close, read_fd)
    given.callback(os.close, write_fd)
    return read_fd, write_fd
