"""How much memory some processes take together, read from /proc: for hosts on which no control group counts it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
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
