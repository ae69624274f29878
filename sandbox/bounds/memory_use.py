"""How much memory some processes take together, read from /proc: for hosts on which no control group counts it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PSS = re.compile(rb"^Pss:\s+([0-9]+) kB$", re.MULTILINE)


def memory_bytes(pids: Iterable[int], enough: int) -> int:
    """Return what processes take, each shared page counted once as far as the kernel tells.

    What they have resident, shared pages counted for each, is read first: it is cheap and never too little. Only if that
    is more than ``enough`` it is looked at closely, which costs about a millisecond for each GiB.

    Args:
        pids: The processes; those that are gone take nothing.
        enough: A bound; less than it need not be exact.
    """
    known = list(pids)
    rough = sum(_resident(pid) for pid in known)
    return rough if rough <= enough else sum(_proportional(pid) for pid in known)


def _resident(pid: int) -> int:
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * _PAGE_BYTES if fields else 0


def _proportional(pid: int) -> int:
    match = _PSS.search(_read(f"/proc/{pid}/smaps_rollup"))
    if match is not None:
        return int(match.group(1)) * 1024
    fields = _read(f"/proc/{pid}/statm").split()
    return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES if fields else 0


def _read(path: str) -> bytes:
    """Return a small file; nothing once the process is gone, or if it is closed to us."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as in procfs
            return file.read()
    except OSError:
        return b""
