"""How each tier starts one command: what is prepared per provider, per sandbox, and per command."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from sandbox.base import Command, ExecRequest, ExecResult, Network
from sandbox.ended_command import EndedCommand
from sandbox.env import JOB_ROOT
from sandbox.errors import CommandNotStartedError, SandboxBrokenError, SandboxError
from sandbox.filesystem import bubblewrap, verdict
from sandbox.filesystem.bubblewrap_status import BubblewrapStatus
from sandbox.filesystem.command import FilesystemCommand
from sandbox.filesystem.namespace_tree import NamespaceTree
from sandbox.filesystem.restricted import Spawner
from sandbox.filesystem.walls import LandlockWalls
from sandbox.filesystem.workspace import Workspace
from sandbox.limits import Limits
from sandbox.output import OutputPump, open_output_pipe
from sandbox.process import ChildProcess, limit_options, limited, spawn
from sandbox.process_tree import SweptTree, count_processes, forget, register

_EXHAUSTED = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What this host has run out of is no property of the command."""


class BubblewrapLauncher:
    """Starts the commands of one sandbox in the bubblewrap tier."""

    def __init__(
        self,
        spawner: Spawner,
        walls: bytes,
        workspace: Workspace,
        network: Network,
        limits: Limits,
    ) -> None:
        self._spawner = spawner
        self._name = workspace.name
        self._limits = limits
        self._prepared = walls + bubblewrap.block(bubblewrap.workspace_options(workspace, network))

    async def start(self, request: ExecRequest, env: Mapping[str, str]) -> Command:
        """Spawn bubblewrap from the thread of its lane: its death signal is tied to the spawning thread."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as undo:
            try:
                with (
                    _pipe(os.pipe, undo) as (status_read, status_write),
                    _pipe(open_output_pipe, undo) as (output_read, output_write),
                ):
                    command = register(self._name)
                    undo.callback(forget, command)
                    popen = await self._spawn(request, env, status_write, output_write)
                command.leader = popen.pid
                child = ChildProcess(popen, loop)
            except (OSError, SandboxError) as error:
                return _bubblewrap_not_spawned(request, error)
            undo.pop_all()
        status = BubblewrapStatus(status_read, loop)
        pump = OutputPump(output_read, loop, held_prefixes=bubblewrap.HELD_PREFIXES)
        return FilesystemCommand(
            child=child,
            pump=pump,
            tree=NamespaceTree(child, status, command, loop),
            request=request,
            conclude=partial(_conclude_bubblewrap, status, pump),
        )

    async def _spawn(
        self, request: ExecRequest, env: Mapping[str, str], status_fd: int, output_fd: int
    ) -> subprocess.Popen[bytes]:
        # Limits are set inside: bubblewrap is not bound by them, and the kernel counts the processes
        # of a user namespace by themselves.
        argv = limited(request.argv, limit_options(self._limits))
        options = bubblewrap.command_options(env, request.cwd)
        args_fd = _memory_file(self._prepared + bubblewrap.block(options))
        fds = ("--args", str(args_fd), "--json-status-fd", str(status_fd), "--")
        start = partial(
            spawn,
            [bubblewrap.BWRAP, *fds, *argv],
            env={},
            output_fd=output_fd,
            pass_fds=(args_fd, status_fd),
        )
        try:
            return await self._spawner.spawn(start)
        finally:
            os.close(args_fd)


class RestrictedLauncher:
    """Starts the commands of one sandbox in the Landlock and plain tiers."""

    def __init__(  # what the commands of one sandbox share
        self,
        workspace: Workspace,
        walls: LandlockWalls | None,
        spawner: Spawner,
        network: Network,
        limits: Limits,
    ) -> None:
        self._workspace = workspace
        self._walls = walls
        self._spawner = spawner
        self._network = network
        self._limits = limits

    async def start(self, request: ExecRequest, env: Mapping[str, str]) -> Command:
        """Spawn the command itself, from a thread that has put the walls around itself."""
        if not os.path.isdir(request.cwd):  # noqa: ASYNC240, PTH112  # one stat, on the hot path
            reason = f"the working directory cannot be used: {request.cwd}"
            return EndedCommand(CommandNotStartedError(reason))
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as undo:
            try:
                with _pipe(open_output_pipe, undo) as (output_read, output_write):
                    command = register(self._workspace.name)
                    undo.callback(forget, command)
                    popen = await self._spawn(request, env, output_write)
                command.leader = popen.pid
                child = ChildProcess(popen, loop)
            except (OSError, SandboxError) as error:
                return _not_spawned(request, error)
            undo.pop_all()
        prefixes = bubblewrap.HELD_PREFIXES if popen.args != list(request.argv) else ()
        pump = OutputPump(output_read, loop, held_prefixes=prefixes)
        return FilesystemCommand(
            child=child,
            pump=pump,
            tree=SweptTree(child, command, loop),
            request=request,
            conclude=partial(_conclude_restricted, pump),
        )

    async def _spawn(
        self, request: ExecRequest, env: Mapping[str, str], output_fd: int
    ) -> subprocess.Popen[bytes]:
        uid = self._workspace.job_uid
        counted = count_processes(uid) if self._limits.pids is not None else 0
        argv = limited(request.argv, limit_options(self._limits, process_count=counted))

        def start() -> subprocess.Popen[bytes]:
            return spawn(argv, env=env, output_fd=output_fd, cwd=request.cwd)

        if self._walls is None:
            return await self._spawner.spawn(start, uid=uid)
        ruleset = self._walls.ruleset(self._workspace, self._network)
        try:
            return await self._spawner.spawn(start, uid=uid, ruleset_fd=ruleset.fd)
        finally:
            ruleset.close()


@contextlib.contextmanager
def _pipe(
    make: Callable[[], tuple[int, int]], undo: contextlib.ExitStack
) -> Iterator[tuple[int, int]]:
    """Make a pipe whose write end is closed after use, and its read end when all of it is undone."""
    read_fd, write_fd = make()
    undo.callback(os.close, read_fd)
    try:
        yield read_fd, write_fd
    finally:
        os.close(write_fd)


def _conclude_bubblewrap(
    status: BubblewrapStatus,
    pump: OutputPump,
    _: int,
    killed: bool,  # a callback
) -> ExecResult:
    status.drain()
    if status.exit_code is not None:
        return _concluded(status.exit_code, pump)
    if not killed and verdict.launch_failure(verdict.EXEC_FAILED, pump.held) is not None:
        # It reports no exit code of a command that it could not execute.
        return _concluded(verdict.EXEC_FAILED, pump)
    outcome = verdict.unreached(killed=killed, held=pump.take_held())
    if isinstance(outcome, SandboxError):
        raise outcome
    return outcome


def _conclude_restricted(pump: OutputPump, status: int, _: bool) -> ExecResult:  # a callback
    return _concluded(status, pump)


def _concluded(status: int, pump: OutputPump) -> ExecResult:
    unlimited = verdict.limits_failure(status, pump.held)
    if unlimited is not None:
        pump.take_held()
        raise unlimited
    failure = verdict.launch_failure(status, pump.held)
    if failure is None:
        return verdict.result_of(status)
    result, line = failure
    pump.take_held()
    pump.inject(line)
    return result


def _bubblewrap_not_spawned(request: ExecRequest, error: OSError | SandboxError) -> EndedCommand:
    """Tell a command line that is too long, which is the job's, from everything else, which is ours."""
    if isinstance(error, OSError) and error.errno != errno.E2BIG:
        error = SandboxBrokenError(f"bubblewrap could not be spawned: {error}")
    return _not_spawned(request, error)


def _not_spawned(request: ExecRequest, error: OSError | SandboxError) -> EndedCommand:
    if isinstance(error, SandboxError):
        return EndedCommand(error)
    if error.errno is None or error.errno in _EXHAUSTED:
        return EndedCommand(SandboxBrokenError(f"the command could not be spawned: {error}"))
    result, line = verdict.not_started(request.argv[0], os.strerror(error.errno))
    return EndedCommand(result, line)


def _memory_file(content: bytes) -> int:
    fd = os.memfd_create("bwrap-args", os.MFD_CLOEXEC)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def mapped(path: str, job_root: str) -> str:
    """Return a path of the job file as it is where ``/job`` cannot be mounted."""
    normal = os.path.normpath(path)
    if normal == JOB_ROOT or normal.startswith(f"{JOB_ROOT}/"):
        return job_root + normal[len(JOB_ROOT) :]
    return path
