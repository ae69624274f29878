"""PID files that do not lie: each names one process for good, and nothing else is ever signalled.

A pid alone is reused. Together with the boot id and the start time in clock ticks it names one process,
and the nonce, which also stands in that process's argv, ties the file to a process that we started
(a restored backup or a copied folder does not have it).
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import NamedTuple

from sandbox import procfs

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MAX_BYTES = 4096


class ProcessIdentity(NamedTuple):
    """What tells one process from every other, on this host, before and after."""

    pid: int
    start_ticks: int
    """Field 22 of ``/proc/PID/stat`` (proc_pid_stat(5))."""
    boot_id: str
    nonce: str
    """Stands after ``--instance`` in the process's argv; no secret."""


def boot_id() -> str:
    """Return the id of this boot; empty on a host without one."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def identify(pid: int, nonce: str) -> ProcessIdentity | None:
    """Return the identity of a living process; called by whoever has just started it."""
    stat = procfs.read_stat(pid)
    if stat is None:
        return None
    return ProcessIdentity(pid, stat.start_ticks, boot_id(), nonce)


def write(path: Path, identity: ProcessIdentity) -> None:
    """Put an identity on disk with mode 0600, whole or not at all, durably.

    Raises:
        OSError: The folder is not writable or full.
    """
    replace_file(path, json.dumps(identity._asdict()).encode() + b"\n", durable=True)


def read(path: Path) -> ProcessIdentity | None:
    """Return the identity in a file; None for a file that is missing, torn, empty or not ours."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    pid, ticks = document.get("pid"), document.get("start_ticks")
    boot, nonce = document.get("boot_id"), document.get("nonce")
    # An exact type, because true is an int too.
    if type(pid) is not int or type(ticks) is not int or pid < 1:
        return None
    if not isinstance(boot, str) or not isinstance(nonce, str) or not nonce:
        return None
    return ProcessIdentity(pid, ticks, boot, nonce)


def remove(path: Path, identity: ProcessIdentity | None) -> None:
    """Delete a PID file if it still holds this identity; a file of somebody else stays."""
    if identity is not None and read(path) == identity:
        path.unlink(missing_ok=True)


def verify(identity: ProcessIdentity) -> bool:
    """Tell whether this very process still lives; a zombie does not."""
    if identity.boot_id != boot_id():
        return False
    stat = procfs.read_stat(identity.pid)
    if stat is None or stat.start_ticks != identity.start_ticks or not stat.alive:
        return False
    try:
        words = Path(f"/proc/{identity.pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(identity.nonce) in words


def open_verified(identity: ProcessIdentity) -> int | None:
    """Return a pidfd of exactly this process, or None; the caller closes it.

    The descriptor is opened first and the identity checked after it: only then can the pid not
    have been reused in between (pidfd_open(2)).
    """
    try:
        pidfd = os.pidfd_open(identity.pid)
    except OSError:
        return None
    if not verify(identity):
        os.close(pidfd)
        return None
    return pidfd


def send_signal(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal this very process; tell whether it was there. Anything else with its pid is left alone."""
    pidfd = open_verified(identity)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def replace_file(path: Path, content: bytes, *, durable: bool) -> None:
    """Write a private file by temporary name and rename, so that no reader sees half of it.

    Raises:
        OSError: The folder is not writable or full; nothing has changed then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
