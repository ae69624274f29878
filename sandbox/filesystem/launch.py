"""How each tier starts one command: what is prepared per provider, per sandbox, and per command."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.base import Command, ExecRequest, ExecResult, Network
from sandbox.ended_command import EndedCommand
from sandbox.env import JOB_ROOT
from sandbox.errors import CommandNotStartedError, SandboxBrokenError, SandboxError
from sandbox.filesystem import bubblewrap, verdict
from sandbox.filesystem.bubblewrap_status import BubblewrapStatus
from sandbox.filesystem.command import FilesystemCommand
from sandbox.filesystem.landlock import Ruleset
from sandbox.filesystem.namespace_tree import NamespaceTree
from sandbox.filesystem.restricted import Restriction, spawn_restricted
from sandbox.filesystem.walls import LandlockWalls
from sandbox.filesystem.workspace import Workspace
from sandbox.limits import Limits
from sandbox.output import OutputPump, open_output_pipe
from sandbox.process import ChildProcess, limit_options, limited, spawn
from sandbox.process_tree import LiveCommand, SweptTree, count_processes, forget, register


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One command, ready to start."""

    name: str
    """The sandbox."""
    request: ExecRequest
    env: dict[str, str]
    limits: Limits


class BubblewrapLauncher:
    """Starts the commands of one sandbox in the bubblewrap tier."""

    def __init__(
        self, front: Sequence[str], walls: bytes, workspace: Workspace, network: Network
    ) -> None:
        self._front = front
        self._prepared = walls + bubblewrap.block(
            bubblewrap.workspace_options(workspace, network)
        )

    async def start(self, launch: Launch) -> Command:
        """Spawn bubblewrap from the loop's thread: its death signal is tied to the spawning thread."""
        request = launch.request
        options = bubblewrap.command_options(launch.env, request.cwd)
        loop = asyncio.get_running_loop()
        command = register(launch.name)
        args_fd = _memory_file(self._prepared + bubblewrap.block(options))
        status_read, status_write = os.pipe()
        output_read, output_write = open_output_pipe()
        try:
            popen = spawn(
                [
                    *self._front,
                    *("--args", str(args_fd), "--json-status-fd", str(status_write), "--"),
                    # Inside, so that bubblewrap is not bounded and processes are counted per sandbox.
                    *limited(request.argv, limit_options(launch.limits)),
                ],
                env={},
                output_fd=output_write,
                pass_fds=(args_fd, status_write),
            )
        except (OSError, SandboxError) as error:
            forget(command)
            os.close(status_read)
            os.close(output_read)
            if isinstance(error, OSError) and error.errno != errno.E2BIG:
                error = SandboxBrokenError(f"bubblewrap could not be spawned: {error}")
            return _not_spawned(request, error)
        finally:
            for fd in (args_fd, status_write, output_write):
                os.close(fd)
        command.leader = popen.pid
        status = BubblewrapStatus(status_read, loop)
        pump = OutputPump(output_read, loop, held_prefixes=bubblewrap.HELD_PREFIXES)
        child = ChildProcess(popen, loop)

        def conclude(_: int, killed: bool) -> ExecResult:  # noqa: FBT001  # a callback's position
            status.drain()
            if status.exit_code is None:
                outcome = verdict.unreached(killed=killed, held=pump.take_held())
                if isinstance(outcome, SandboxError):
                    raise outcome
                return outcome
            return _concluded(status.exit_code, pump)

        return FilesystemCommand(
            child=child,
            pump=pump,
            tree=NamespaceTree(child, status, command, loop),
            request=request,
            conclude=conclude,
        )


class RestrictedLauncher:
    """Starts the commands of one sandbox in the Landlock and plain tiers."""

    def __init__(self, workspace: Workspace, walls: LandlockWalls | None, network: Network) -> None:
        self._workspace = workspace
        self._walls = walls
        self._network = network

    async def start(self, launch: Launch) -> Command:
        """Spawn the command itself, from a thread that has put the walls around itself."""
        request = launch.request
        if not Path(request.cwd).is_dir():
            return EndedCommand(
                CommandNotStartedError(f"the working directory cannot be used: {request.cwd}")
            )
        uid = self._workspace.job_uid
        counted = count_processes(uid) if launch.limits.pids is not None else 0
        options = limit_options(launch.limits, process_count=counted)
        command = register(launch.name)
        ruleset: Ruleset | None = None
        output_read, output_write = open_output_pipe()
        try:
            argv = limited(request.argv, options)
            if self._walls is not None:
                ruleset = self._walls.ruleset(self._workspace, self._network)

            def start() -> subprocess.Popen[bytes]:
                return spawn(argv, env=launch.env, output_fd=output_write, cwd=request.cwd)

            restriction = Restriction(ruleset_fd=ruleset.fd if ruleset else None, uid=uid)
            popen = await spawn_restricted(restriction, start)
        except BaseException as error:
            forget(command)
            os.close(output_read)
            if isinstance(error, (OSError, SandboxError)):
                return _not_spawned(request, error)
            raise
        finally:
            os.close(output_write)
            if ruleset is not None:
                ruleset.close()
        return _watched(popen, command, output_read, request, limits_in_front=bool(options))


def _watched(
    popen: subprocess.Popen[bytes],
    command: LiveCommand,
    output_read: int,
    request: ExecRequest,
    *,
    limits_in_front: bool,
) -> FilesystemCommand:
    loop = asyncio.get_running_loop()
    command.leader = popen.pid
    prefixes = bubblewrap.HELD_PREFIXES if limits_in_front else ()
    pump = OutputPump(output_read, loop, held_prefixes=prefixes)
    child = ChildProcess(popen, loop)

    def conclude(status: int, _: bool) -> ExecResult:  # noqa: FBT001  # a callback's position
        return _concluded(status, pump)

    return FilesystemCommand(
        child=child,
        pump=pump,
        tree=SweptTree(child, command, loop),
        request=request,
        conclude=conclude,
    )


def _concluded(status: int, pump: OutputPump) -> ExecResult:
    failure = verdict.launch_failure(status, pump.held)
    if failure is None:
        return verdict.result_of(status)
    result, line = failure
    pump.take_held()
    pump.inject(line)
    return result


def _not_spawned(request: ExecRequest, error: OSError | SandboxError) -> EndedCommand:
    if isinstance(error, SandboxError):
        return EndedCommand(error)
    if isinstance(error, BlockingIOError) or error.errno is None:
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
