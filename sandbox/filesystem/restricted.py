"""Starting a command from a thread that gave up its rights first.

Credentials, no_new_privs and Landlock rules belong to a thread of Linux, and a child inherits them from
the thread that spawns it. So a throw-away thread per command takes the restrictions upon itself and
spawns by vfork; nothing runs between fork and exec, and no program is needed in between. In particular
nothing of root's is executed with an environment that a job has chosen: with LD_PRELOAD in it,
setpriv(1) would run the job's code as root.

The C library's setuid() changes all threads of the process; the raw system calls change one.
"""

from __future__ import annotations

import _thread
import asyncio
import ctypes
import os
import platform
import queue
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from sandbox.errors import SandboxBrokenError, SandboxError, SandboxUnavailableError
from sandbox.filesystem.landlock import restrict_thread
from sandbox.filesystem.settled import settled
from sandbox.process import discard, libc

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LAST_CAPABILITY = 63


@dataclass(frozen=True, slots=True)
class _CredentialCalls:
    """Numbers of the system calls of one machine (asm/unistd.h)."""

    setgroups: int
    setresgid: int
    setresuid: int


_GENERIC = _CredentialCalls(setgroups=159, setresgid=149, setresuid=147)
_CALLS = {
    "x86_64": _CredentialCalls(setgroups=116, setresgid=119, setresuid=117),
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "loongarch64": _GENERIC,
}


def can_change_user() -> bool:
    """Tell whether the system calls of this machine are known."""
    return platform.machine() in _CALLS


class Spawner:
    """Spawns the commands of one provider behind what its tier takes away. Used on one event loop.

    A thread of its own gives up once what all commands have to give up. What it keeps is the user: while it waits,
    a job could signal, that is kill, a thread of its own user. So the user, like Landlock rules, is the matter of a
    thread that exists for one command and inherits the rest from this one.
    """

    def __init__(self, *, changes_user: bool, for_good: Callable[[], None] | None = None) -> None:
        """Remember what to give up; the thread begins with the first command.

        Args:
            changes_user: Whether root's rights are given up.
            for_good: Gives up more on the very thread, for all commands.
        """
        self._changes_user = changes_user
        self._for_good = for_good
        self._work: _Work = queue.SimpleQueue()
        self._started = False
        self._refused = False
        """The thread could not give up what it must: the next command gets another one."""

    async def spawn(
        self,
        start: Callable[[], subprocess.Popen[bytes]],
        *,
        uid: int | None = None,
        ruleset_fd: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """Call ``start`` on a thread that is restricted, and return what it started.

        Args:
            start: Spawns by vfork.
            uid: User and group to become for this command alone, or None to stay.
            ruleset_fd: Landlock rules, or None for none.

        Raises:
            OSError: The program cannot be executed.
            SandboxUnavailableError: The restriction cannot be applied.
            SandboxBrokenError: The host has no thread, descriptor or memory for it now.
        """
        if self._refused:
            self.close()
        if not self._started:
            self._begin()
        spawning = _Spawning(start, uid, ruleset_fd)
        self._work.put(spawning)
        try:
            return await settled(spawning.started)
        except asyncio.CancelledError:
            if spawning.started.exception() is None:
                discard(spawning.started.result())
            raise

    def close(self) -> None:
        """Let the thread end when it has spawned what it was asked to. Idempotent."""
        if self._started:
            self._started = False
            self._work.put(None)

    def _begin(self) -> None:
        self._work, self._refused = queue.SimpleQueue(), False
        try:
            _thread.start_new_thread(self._run, (self._work,))
        except RuntimeError as error:
            raise SandboxBrokenError(f"a thread could not be started: {error}") from error
        self._started = True

    def _run(self, work: _Work) -> None:
        refused: SandboxError | None = None
        try:
            _give_up_for_all(changes_user=self._changes_user)
            if self._for_good is not None:
                self._for_good()
        except SandboxError as error:
            refused = error
        except Exception as error:  # noqa: BLE001 - whatever it is, a command waits for this thread
            refused = SandboxBrokenError(f"a thread could not be restricted: {error}")
        self._refused = refused is not None
        while (spawning := work.get()) is not None:
            if refused is not None:
                spawning.fail(refused)
            elif spawning.needs_own_thread:
                spawning.on_new_thread()
            else:
                spawning.run()
            del spawning  # what it holds must not live until the next one comes


_Work: TypeAlias = "queue.SimpleQueue[_Spawning | None]"


class _Spawning:
    """One command on its way to be spawned."""

    def __init__(
        self, start: Callable[[], subprocess.Popen[bytes]], uid: int | None, ruleset_fd: int | None
    ) -> None:
        self._start = start
        self._uid = uid
        self._ruleset_fd = ruleset_fd
        self._loop = asyncio.get_running_loop()
        self.started: asyncio.Future[subprocess.Popen[bytes]] = self._loop.create_future()

    @property
    def needs_own_thread(self) -> bool:
        """Tell whether the thread that spawns it can do nothing else any more."""
        return self._uid is not None or self._ruleset_fd is not None

    def on_new_thread(self) -> None:
        """Spawn it from a thread that begins with the restrictions of this one."""
        try:
            _thread.start_new_thread(self.run, ())
        except RuntimeError as error:
            self.fail(SandboxBrokenError(f"a thread could not be started: {error}"))

    def run(self) -> None:
        """Give up what is left to give up, and spawn it."""
        try:
            if self._uid is not None:
                become(self._uid)
            if self._ruleset_fd is not None:
                restrict_thread(self._ruleset_fd)
            popen = self._start()
        except (OSError, ValueError, SandboxError) as error:
            self.fail(error)
        else:
            self._loop.call_soon_threadsafe(self.started.set_result, popen)

    def fail(self, error: Exception) -> None:
        """Report why it was not spawned."""
        self._loop.call_soon_threadsafe(self.started.set_exception, error)


def _give_up_for_all(*, changes_user: bool) -> None:
    """Take from the calling thread, for good, what no command may have."""
    if changes_user:
        for capability in range(_LAST_CAPABILITY + 1):
            if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
                break  # past the last one of this kernel
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        _checked(libc.syscall(_known_calls().setgroups, ctypes.c_size_t(0), None), "setgroups")
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def become(uid: int) -> None:
    """Change user and group of the calling thread, for good; every capability goes with the last of root's ids.

    Raises:
        SandboxUnavailableError: The kernel refused.
    """
    calls = _known_calls()
    _checked(libc.syscall(calls.setresgid, uid, uid, uid), "setresgid")
    _checked(libc.syscall(calls.setresuid, uid, uid, uid), "setresuid")


def _known_calls() -> _CredentialCalls:
    calls = _CALLS.get(platform.machine())
    if calls is None:
        raise SandboxUnavailableError(f"changing the user is not known for {platform.machine()}")
    return calls


def _checked(result: int, what: str) -> None:
    if result < 0:
        raise SandboxUnavailableError(f"{what}: {os.strerror(ctypes.get_errno())}")
