"""A sandbox of the filesystem kind: a workspace and a way to start commands behind its walls."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from sandbox.base import Command, ExecRequest, SandboxInfo, Tier
from sandbox.collection import Taker
from sandbox.ended_command import EndedCommand
from sandbox.env import JOB_ROOT, base_env, command_env
from sandbox.errors import CommandNotStartedError, SandboxBrokenError
from sandbox.filesystem import bubblewrap
from sandbox.filesystem.aftermath import Aftermath, look
from sandbox.filesystem.checkouts import NO_CHECKOUTS
from sandbox.filesystem.collecting import TreeCollection
from sandbox.filesystem.command import FilesystemCommand
from sandbox.filesystem.lanes import Lane
from sandbox.filesystem.parked import Parked
from sandbox.filesystem.removal_queue import RemovalQueue
from sandbox.filesystem.settled import in_thread
from sandbox.filesystem.transfer import TreeCopy, open_folder, read_file
from sandbox.filesystem.workspace import Workspace
from sandbox.job_path import mapped
from sandbox.job_socket import FOLDER, SOCKET, Answer, Door, JobSocket, install


class Launcher(Protocol):
    """Starts commands in one tier."""

    async def start(
        self, request: ExecRequest, env: Mapping[str, str], aftermath: Aftermath
    ) -> FilesystemCommand | EndedCommand:
        """Start a command, or return one that ended before it began."""
        ...


class FilesystemSandbox:
    """One workspace on this host. Made by ``FilesystemProvider.create``."""

    def __init__(  # noqa: PLR0913  # the parts of one sandbox, joined once
        self,
        *,
        owner_label: str,
        info: SandboxInfo,
        workspace: Workspace,
        lane: Lane,
        removals: RemovalQueue,
        launcher: Launcher,
        parked: Parked | None,
        protects: bool,
        on_destroyed: Callable[[FilesystemSandbox], None],
    ) -> None:
        self._name = workspace.name
        self.lane = lane
        self._info = info
        self._workspace = workspace
        self._pool = lane.pool
        self._removals = removals
        self._launcher = launcher
        self._parked = parked
        """Where the first command may begin at once; None once one has, or if nothing was built ahead."""
        self._protects = protects
        self._on_destroyed = on_destroyed
        self._command: FilesystemCommand | EndedCommand | None = None
        self._all_verified_dead = True
        """Whether of each command, the running one excepted, it is certain that nothing lives."""
        self._destroyed = False
        self._removed = False
        self._lock = asyncio.Lock()
        """Held while something is started, copied or removed, so that no two of them race."""
        self._stop_copy: threading.Event | None = None
        """Ends the copy that goes on."""
        self._socket: JobSocket | None = None
        mounted = info.tier is Tier.BWRAP
        self._job_root = JOB_ROOT if mounted else f"{workspace.text}/job"
        self._base_env = _inherited(workspace, owner_label, mounted=mounted)

    @property
    def name(self) -> str:
        """Return what the sandbox is called."""
        return self._name

    @property
    def verified_dead(self) -> bool:
        """Tell whether it is certain that no process of it lives. Asked once it is destroyed."""
        return self._all_verified_dead

    @property
    def info(self) -> SandboxInfo:
        """Return the tier and the walls that it does not hold."""
        return self._info

    @property
    def job_root(self) -> str:
        """Return ``/job``, or the workspace's folder where nothing can be mounted."""
        return self._job_root

    @property
    def base_env(self) -> Mapping[str, str]:
        """Return the variables that every command has."""
        return self._base_env

    def inside(self, path: str) -> str:
        """Map a path of the job file to the one that commands see."""
        return mapped(path, self._job_root)

    async def upload(
        self, source: Path, target: str, left_out: frozenset[str] = frozenset()
    ) -> None:
        """Copy the content of a host folder below the job root; see ``Sandbox.upload``."""
        async with self._lock:
            self._refuse_destroyed()
            self._pool.forget(self._workspace)
            stop = self._stop_copy = threading.Event()
            await in_thread(partial(self._upload, source, target, left_out, stop), stop.set)

    async def download(self, path: str, limit_bytes: int) -> bytes:
        """Read a regular file below the job root; see ``Sandbox.download``."""
        # Asked of every job for files that few jobs leave: a thread would cost more than the answer.
        if "/" not in path and not os.path.lexists(f"{self._workspace.text}/job/{path}"):  # noqa: ASYNC240 - one call of the system
            raise FileNotFoundError(path)
        return await asyncio.to_thread(read_file, self._workspace.job, path, limit_bytes)

    async def collect(self, path: str, taker: Taker) -> None:
        """Offer the files of a folder; see ``Collecting.collect``."""
        async with self._lock:
            self._refuse_destroyed()
            stop = self._stop_copy = threading.Event()
            walk = TreeCollection(taker=taker, owner=self._workspace.job_uid, stop=stop)
            await in_thread(partial(walk.run, self._workspace.job, path), stop.set)

    async def exec(self, request: ExecRequest) -> Command:
        """Start one command; see ``Sandbox.exec``."""
        try:
            request.check()
            env = command_env(self._base_env, request.env)
        except ValueError as error:
            self._refuse_destroyed()
            return EndedCommand(CommandNotStartedError(str(error)))
        async with self._lock:
            self._refuse_destroyed()
            self._settle_command()
            is_as_made = self._pool.enter(self._workspace)
            aftermath = await look(
                self._workspace, self._pool, looks_for_checkouts=self._protects and not is_as_made
            )
            self._command = await self._begin(request, env, aftermath)
            return self._command

    async def listen(self, answer: Answer) -> Door:
        """Let commands reach the runner; see ``Listening.listen``. The Landlock tier lets them use no unix socket."""
        folder = f"{self._job_root}/{FOLDER}"
        async with self._lock:
            self._refuse_destroyed()
            self._pool.forget(self._workspace)
            try:
                install(self._workspace.job)
                if self._info.tier is Tier.LANDLOCK:
                    return Door(folder, "")
                self._socket = JobSocket(answer)
                await self._socket.open(self._workspace.job, self._workspace.job_uid)
            except OSError as error:
                raise SandboxBrokenError(f"no socket for {self._name}: {error}") from error
        return Door(folder, f"{folder}/{SOCKET}")

    async def destroy(self) -> None:
        """Kill what runs and remove the workspace; see ``Sandbox.destroy``."""
        self._destroyed = True
        if self._stop_copy is not None:
            self._stop_copy.set()
        if self._command is not None:
            await self._command.kill()
        async with self._lock:
            if self._removed:
                return
            # What was being started or copied has got the lock before.
            if self._socket is not None:
                self._socket.close()
            if self._command is not None:
                await self._command.kill()
                self._command.discard_output()
                self._settle_command()
            if self._parked is not None:
                await self._discard(self._parked)
            try:
                await self._release_workspace()
            except OSError as error:
                raise SandboxBrokenError(
                    f"the workspace {self._workspace.path} cannot be removed: {error}"
                ) from error
            self._removed = True
            self._on_destroyed(self)

    async def _begin(
        self, request: ExecRequest, env: Mapping[str, str], aftermath: Aftermath
    ) -> FilesystemCommand | EndedCommand:
        """Begin in what was built ahead, if that is what the command would get; else start it."""
        if self._parked is not None:
            if request.stdin is None and aftermath.checkouts == NO_CHECKOUTS:
                command = self._parked.begin(request, env, aftermath)
                if command is not None:
                    self._parked = None
                    return command
            await self._discard(self._parked)
        return await self._launcher.start(request, env, aftermath)

    async def _discard(self, parked: Parked) -> None:
        dead = await parked.discard()
        self._parked = None
        self._all_verified_dead = self._all_verified_dead and dead

    def _settle_command(self) -> None:
        """Note how the tree of a command has ended, and forget the command."""
        command, self._command = self._command, None
        if command is not None and not command.verified_dead:
            self._all_verified_dead = False

    async def _release_workspace(self) -> None:
        if self._all_verified_dead and self._pool.give_back(self._workspace):
            return
        self._pool.forget(self._workspace)
        # A lane that may not be used again needs no next one.
        then = self._pool.make_spare if self._all_verified_dead else None
        if not (self._workspace.is_empty() and self._removals.put(self._workspace, then)):
            await in_thread(self._workspace.remove)

    def _refuse_destroyed(self) -> None:
        if self._destroyed:
            raise SandboxBrokenError(f"the sandbox {self._name} was destroyed")

    def _upload(
        self, source: Path, target: str, left_out: frozenset[str], stop: threading.Event
    ) -> None:
        root = self._workspace.path.parent.stat()
        owner = self._workspace.job_uid
        folder = open_folder(self._workspace.job, target, owner=owner, create=True)
        try:
            skip = (root.st_dev, root.st_ino)
            copy = TreeCopy(owner=owner, skip=skip, left_out=left_out, stop=stop)
            copy.run(source, folder)
        finally:
            os.close(folder)


def _inherited(workspace: Workspace, owner_label: str, *, mounted: bool) -> dict[str, str]:
    """Return the variables that every command starts from."""
    name, top = workspace.name, workspace.text
    if mounted:
        job, home, tmp = JOB_ROOT, bubblewrap.HOME, bubblewrap.TMP
    else:
        job, home, tmp = f"{top}/job", f"{top}/home", f"{top}/tmp"  # noqa: S108 - its own
    return base_env(name=name, owner=owner_label, job_root=job, home=home, tmp=tmp)
