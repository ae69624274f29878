"""Runs git: a closed environment, bounded output, and no process that outlives its task.

What is run here reads repositories that are not trusted, so nothing of the caller's configuration and nothing of the
repository's decides which programs git starts: see ``git_settings``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from agent_runner.errors import SourceError
from sandbox.process import JOB_UMASK, ChildProcess

GIT = "git"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GRACE_S = 2.0
"""Between TERM and KILL: git removes its lock files on TERM."""
LEFTOVER_S = 5.0
"""A process that left git's group may hold the output for so long after git's end."""
MAX_ANSWER_BYTES = 64 << 20
KEPT_ERROR_BYTES = 16 << 10
LAST_LINES = 6
MAX_LINE_CHARS = 300


class GitFailedError(SourceError):
    """A git command failed; the text holds its last lines, without the credentials that git was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """How git is run for one preparation; cheap to vary with ``with_env``."""

    env: Mapping[str, str]
    fds: tuple[int, ...] = ()
    """What every command inherits: the credentials, and the lock that must hold for as long as a git process lives."""
    mask: Callable[[str], str] = str
    """Hides the credentials in what git says: once it is cut, a part of them would not be found any more."""

    def with_env(self, **env: str) -> Git:
        """Return the same with some variables set."""
        return replace(self, env={**self.env, **env})

    def with_fd(self, fd: int) -> Git:
        """Return the same with one more descriptor."""
        return replace(self, fds=(*self.fds, fd))

    async def run(self, *arguments: str, folder: Path | None = None) -> bytes:
        """Run one command to its end and return its standard output. A cancellation ends all its processes first.

        Raises:
            GitFailedError: It failed, or answered more than 64 MiB.
            SourceError: git is not installed.
        """
        running = _Running.start(self, arguments, folder)
        try:
            await running.wait()
        finally:
            status = await _finished(running)
        if status != 0:
            raise GitFailedError(
                f"git {_subcommand(arguments)} failed: {running.last_lines(status, self.mask)}"
            )
        if running.answer.cut:
            raise GitFailedError(f"git {_subcommand(arguments)} answered more than 64 MiB")
        return bytes(running.answer.data)

    async def succeeds(self, *arguments: str, folder: Path | None = None) -> bool:
        """Tell whether a command succeeds."""
        try:
            await self.run(*arguments, folder=folder)
        except GitFailedError:
            return False
        return True


class _Tail(asyncio.Protocol):
    """The end of what a pipe carries."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.cut = False
        self.ended = asyncio.Event()
        self._limit = limit

    def data_received(self, data: bytes) -> None:
        self.data += data
        if len(self.data) > self._limit:
            self.cut = True
            del self.data[: -self._limit]

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


class _Running:
    """One git process and its group."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self._child = ChildProcess(popen.pid, asyncio.get_running_loop())
        self._transports: list[asyncio.ReadTransport] = []
        self.answer = _Tail(MAX_ANSWER_BYTES)
        self.errors = _Tail(KEPT_ERROR_BYTES)

    @classmethod
    def start(cls, git: Git, arguments: tuple[str, ...], folder: Path | None) -> _Running:
        try:
            popen = subprocess.Popen(
                [GIT, *arguments],
                env={**git.env, "PATH": PATH},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=git.fds,
                bufsize=0,
                umask=JOB_UMASK,
            )
        except FileNotFoundError as error:
            if folder is not None and not folder.is_dir():
                raise SourceError(f"{folder} is not there any more") from error
            raise SourceError("git is not installed on the agent-runner's host") from error
        return cls(popen)

    async def wait(self) -> None:
        """Wait until git has ended."""
        loop = asyncio.get_running_loop()
        for pipe, tail in ((self._popen.stdout, self.answer), (self._popen.stderr, self.errors)):
            transport, _ = await loop.connect_read_pipe(partial(_same, tail), pipe)
            self._transports.append(transport)
        await self._child.wait_exited()

    async def finish(self) -> int:
        """End what still runs of its group, take the rest of the output, and return the status."""
        if not self._child.has_exited:
            self._signal_group(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child.wait_exited(), GRACE_S)
        # The leader is not collected yet, so the number of the group is nobody else's.
        self._signal_group(signal.SIGKILL)
        await self._child.wait_exited()
        self._popen.returncode = status = self._child.reap()
        self._collect_group()
        for transport, tail in zip(self._transports, (self.answer, self.errors), strict=False):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(tail.ended.wait(), LEFTOVER_S)
            transport.close()
        for pipe in (self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                pipe.close()
        return status

    def last_lines(self, status: int, mask: Callable[[str], str]) -> str:
        """Return what git said last, in one line."""
        data = self.errors.data.replace(b"\r", b"\n")
        if self.errors.cut:
            # It may begin in the middle of something that is to be hidden.
            data = data.partition(b"\n")[2]
        text = mask(data.decode("utf-8", "replace"))
        lines = [line.strip()[:MAX_LINE_CHARS] for line in text.splitlines() if line.strip()]
        printable = ("".join(c if c.isprintable() else "?" for c in line) for line in lines)
        return "; ".join(list(printable)[-LAST_LINES:]) or f"exit code {status}"

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)

    def _collect_group(self) -> None:
        """Collect members that became ours when git died: this process adopts orphans."""
        with contextlib.suppress(ChildProcessError):
            while os.waitid(os.P_PGID, self._popen.pid, os.WEXITED) is not None:
                pass


def _same(tail: _Tail) -> _Tail:
    return tail


async def _finished(running: _Running) -> int:
    """Finish a process whatever happens; a cancellation is passed on after that."""
    finishing = asyncio.ensure_future(running.finish())
    cancelled: asyncio.CancelledError | None = None
    while not finishing.done():
        try:
            await asyncio.wait({finishing})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return finishing.result()


def _subcommand(arguments: tuple[str, ...]) -> str:
    return next((word for word in arguments if not word.startswith("-")), "")
