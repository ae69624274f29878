"""What processes take together, shared pages counted once."""

from __future__ import annotations

import os

from sandbox.bounds.memory_use import memory_bytes, memory_file_bytes
from sandbox.limits import MIB


def test_shared_pages_count_once() -> None:
    """Looked at closely, a process and its fork are not twice the process."""
    ballast = bytearray(64 * MIB)
    ballast[::4096] = b"x" * len(ballast[::4096])
    release_read, release = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(release)
        os.read(release_read, 1)
        os._exit(0)
    try:
        own = memory_bytes([os.getpid()], 0)
        both = memory_bytes([os.getpid(), child], 0)
        rough = memory_bytes([os.getpid(), child], 1 << 60)
    finally:
        os.close(release)
        os.waitpid(child, 0)
        os.close(release_read)
    assert own > 30 * MIB
    assert both < rough - 60 * MIB
    assert memory_bytes([child], 0) == 0


def test_files_of_memory_count_once_mapped_or_not() -> None:
    """Whoever only writes to one has nothing of it in its own memory; a second descriptor is no second file."""
    before = memory_file_bytes([os.getpid()])
    fd = os.memfd_create("ballast")
    again = os.dup(fd)
    try:
        os.write(fd, bytes(3 * MIB))
        assert memory_file_bytes([os.getpid(), os.getpid()]) - before == 3 * MIB
    finally:
        os.close(fd)
        os.close(again)
    assert memory_file_bytes([os.getpid()]) == before
