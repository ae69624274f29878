"""Starting a command from a thread that gave up its rights first.

Credentials, no_new_privs and Landlock rules belong to a thread of Linux, and a child inherits them from
the thread that spawns it. So one throw-away thread per command takes the restrictions upon itself and
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
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from sandbox.errors import SandboxUnavailableError
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Restriction:
    """What a thread gives up before it spawns."""

    ruleset_fd: int | None
    """Landlock rules, or None for none."""
    uid: int | None
    """User and group to become, or None to stay."""

    def apply(self) -> None:
        """Restrict the calling thread, for good.

        Raises:
            SandboxUnavailableError: The kernel refused, or the machine is not known.
        """
        if self.uid is not None:
            _become(self.uid)
        _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        if self.ruleset_fd is not None:
            restrict_thread(self.ruleset_fd)


def can_change_user() -> bool:
    """Tell whether the system calls of this machine are known."""
    return platform.machine() in _CALLS


async def spawn_restricted(
    restriction: Restriction, start: Callable[[], subprocess.Popen[bytes]]
) -> subprocess.Popen[bytes]:
    """Call ``start`` on a new thread behind the restriction, and return what it started.

    Raises:
        OSError: The program cannot be executed.
        SandboxUnavailableError: The restriction cannot be applied.
    """
    loop = asyncio.get_running_loop()
    started: asyncio.Future[subprocess.Popen[bytes]] = loop.create_future()

    def run() -> None:
        try:
            restriction.apply()
            popen = start()
        except (OSError, ValueError, SandboxUnavailableError) as error:
            loop.call_soon_threadsafe(started.set_exception, error)
        else:
            loop.call_soon_threadsafe(started.set_result, popen)

    _thread.start_new_thread(run, ())  # Thread.start() would block the event loop until it runs
    try:
        return await settled(started)
    except asyncio.CancelledError:
        if started.exception() is None:
            discard(started.result())
        raise


def _become(uid: int) -> None:
    calls = _CALLS.get(platform.machine())
    if calls is None:
        raise SandboxUnavailableError(f"changing the user is not known for {platform.machine()}")
    for capability in range(_LAST_CAPABILITY + 1):
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # past the last one of this kernel
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _checked(libc.syscall(calls.setgroups, ctypes.c_size_t(0), None), "setgroups")
    _checked(libc.syscall(calls.setresgid, uid, uid, uid), "setresgid")
    _checked(libc.syscall(calls.setresuid, uid, uid, uid), "setresuid")


def _checked(result: int, what: str) -> None:
    if result < 0:
        raise SandboxUnavailableError(f"{what}: {os.strerror(ctypes.get_errno())}")
