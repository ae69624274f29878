"""How much memory some processes take together, read from /proc: for hosts on which no control group counts it."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterable

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_BLOCK_BYTES = 512
_FIELD = re.compile(rb"^(Pss|Pss_Shmem):\s+([0-9]+) kB$", re.MULTILINE)


def memory_bytes(pids: Iterable[int], enough: int, files_bytes: int = 0) -> int:
    """Return what processes take, each shared page counted once as far as the kernel tells.

    What they have resident, shared pages counted for each, is read first: it is cheap and never too little. Only if that
    is more than ``enough`` it is looked at closely, which costs about a millisecond for each GiB.

    Args:
        pids: The processes; those that are gone take nothing.
        enough: A bound; less than it need not be exact.
        files_bytes: What their files in memory take, mapped or not.
    """
    known = list(pids)
    rough = sum(_resident(pid) for pid in known) + files_bytes
    if rough <= enough:
        return rough
    total = mapped = 0
    for pid in known:
        proportional, shared = _proportional(pid)
        total += proportional
        mapped += shared
    # Files that are mapped are in both.
    return total - mapped + max(mapped, files_bytes)


def shared_memory_bytes(pid: int) -> int:
    """Return what the files in the /dev of a process take, for one whose /dev is its sandbox's own; 0 if it is gone."""
    try:
        found = os.statvfs(f"/proc/{pid}/root/dev/shm")
    except OSError:
        return 0
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def memory_file_bytes(pids: Iterable[int]) -> int:
    """Return what the files of memfd_create(2) take that processes hold open, each counted once, mapped or not.

    They are in no process that does not map them. Those of a process whose descriptors are closed to us are not seen.
    """
    device = _memory_device()
    found: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - as in procfs
                with contextlib.suppress(OSError):
                    file = os.stat(f"/proc/{pid}/fd/{fd}")  # noqa: PTH116 - leads to what is open
                    if file.st_dev == device:
                        found[file.st_ino] = file.st_blocks * _BLOCK_BYTES
    return sum(found.values())


@functools.cache
def _memory_device() -> int:
    """Return the number of the file system that all such files of the kernel are on."""
    fd = os.memfd_create("device", os.MFD_CLOEXEC)
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)


def _resident(pid: int) -> int:
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * _PAGE_BYTES if fields else 0


def _proportional(pid: int) -> tuple[int, int]:
    """Return the share of a process of all its pages, and of those of files in memory among them."""
    found = dict(_FIELD.findall(_read(f"/proc/{pid}/smaps_rollup")))
    if b"Pss" in found:
        return int(found[b"Pss"]) * 1024, int(found.get(b"Pss_Shmem", 0)) * 1024
    fields = _read(f"/proc/{pid}/statm").split()
    return ((int(fields[1]) - int(fields[2])) * _PAGE_BYTES if fields else 0), 0


def _read(path: str) -> bytes:
    """Return a small file; nothing once the process is gone, or if it is closed to us."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as in procfs
            return file.read()
    except OSError:
        return b""
