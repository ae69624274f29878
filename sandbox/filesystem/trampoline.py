"""The first program of every command: it makes the system calls of a list, the last of which becomes the command.

Who spawns by vfork can do nothing between birth and exec, and a fork copies the page tables of this process. So
what a command has to give up is given up after an exec: by an own program, so small that its start costs 0.2 ms,
without a loader, a library or an environment that a job could use while it is still root's. No thread of this process ever has
the user or the Landlock domain of a job, which could signal, that is kill, all of it through such a thread.

Machine code, because a script's interpreter takes 10 ms and a compiler is on no host. The sources are in
``machine_code``. It maps the list (see ``CallList``) from its stdin and goes through the steps, of eight words each: flags, number of
the call, six arguments. A step that must succeed and fails is told on stderr, and is the end. A step may lead to another list, where its result is 0.
"""

from __future__ import annotations

import errno
import os
import signal
import struct
from collections.abc import Sequence
from pathlib import Path

from sandbox.errors import SandboxUnavailableError
from sandbox.filesystem.system_calls import Machine, this_machine

_X86_64 = bytes.fromhex(
    "b80800000031ff31f6ba020000000f054889c6b809000000bf00000010ba0300"
    "000041ba120000004531c04531c90f05bd00000010488b5d184531ed4531f64c"
    "8b2341f6c40274064983fdf87544488b4308488b7b10488b7318488b53204c8b"
    "53284c8b43304c8b4b380f054989c5483d01f0ffff721b41f6c401753041f6c4"
    "04740f4883f8fe74094883f8ec74034989c641f6c408740f4d85ed750a488b6b"
    "38488b5d18eb984883c340eb924d85f64d0f45ee4c8965084c896d10b8010000"
    "00bf0200000089eeba200000000f05b8e7000000bf7f0000000f05"
)
_AARCH64 = bytes.fromhex(
    "000080d2010080d2420080d2c80780d2010000d4e10300aa0000a2d2620080d2"
    "430280d2040080d2050080d2c81b80d2010000d41400a2d2930e40f9150080d2"
    "160080d2770240f977000836bf2200b101020054688240a9618a41a9639242a9"
    "651e40f9010000d4f50300aa1ffc3fb103010054d7010037d70010361f0800b1"
    "800000541f5000b140000054f60300aab7001836950000b5741e40f9930e40f9"
    "e9ffff1773020191e7ffff17df0200f1d512959a97d600a9400080d2e10314aa"
    "020480d2080880d2010000d4e00f80d2c80b80d2010000d4"
)
CODE = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}
"""The machine as ELF knows it, and the code; the tests assemble the sources again."""
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_ADDRESS = 0x400000
_LARGEST_PAGE = 0x10000
_MFD_EXEC = 0x10
_PROGRAM = 0o555
_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
"""None of them is ignored by a command: neither what Python ignores nor what the shell does that started the runner."""


class Trampoline:
    """The program, in a file without a name. Made once per tier."""

    def __init__(self, folder: Path | None = None) -> None:
        """Make the program.

        Args:
            folder: Takes the file where the kernel forbids programs in memory (``vm.memfd_noexec``); None for no such folder.

        Raises:
            SandboxUnavailableError: There is no code for this machine, or no place for it.
        """
        machine = this_machine()
        if machine is None:
            raise SandboxUnavailableError(f"no code for the machine {os.uname().machine}")
        self.machine: Machine = machine
        self.fd = _executable_file(image(machine.name), folder)

    def spawn(self, calls: bytes, *, output_fd: int, kept: Sequence[int] = ()) -> int:
        """Start a process that goes through a list of calls; return its pid. By vfork: it takes 0.2 ms.

        It leads its own session. Its stdin is the list, its stdout and stderr are ``output_fd``. Its death signal, if
        it asks for one, is tied to the calling thread.

        Args:
            calls: What ``CallList.finish`` returned.
            output_fd: The write end of its output.
            kept: Descriptors that it has, under their numbers, until it closes them.

        Raises:
            OSError: The host has no process, descriptor or memory for it now.
        """
        list_fd = memory_file("calls", calls)
        try:
            return os.posix_spawn(
                f"/proc/self/fd/{self.fd}",
                ["launch"],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, list_fd, 0),
                    (os.POSIX_SPAWN_DUP2, output_fd, 1),
                    (os.POSIX_SPAWN_DUP2, output_fd, 2),
                    # Onto itself: the C library takes the mark off that closes it on exec.
                    *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in kept),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=_SIGNALS,
            )
        finally:
            os.close(list_fd)

    def close(self) -> None:
        """Give the file back. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def image(machine: str) -> bytes:
    """Return the program of a machine: an ELF file of one segment, read and executed, never written."""
    number, code = CODE[machine]
    start = _HEADER.size + _SEGMENT.size
    size = start + len(code)
    header = _HEADER.pack(
        b"\x7fELF\x02\x01\x01", 2, number, 1, _ADDRESS + start, _HEADER.size, 0, 0,
        _HEADER.size, _SEGMENT.size, 1, 0, 0, 0,
    )  # fmt: skip
    segment = _SEGMENT.pack(1, 5, 0, _ADDRESS, _ADDRESS, size, size, _LARGEST_PAGE)
    return header + segment + code


def memory_file(name: str, content: bytes, flags: int = 0) -> int:
    """Return a file of memory with this content, read from its beginning."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | flags)
    try:
        written = 0
        while written < len(content):  # by its place: who reads the file begins at its beginning
            written += os.pwrite(fd, content[written:], written)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _executable_file(content: bytes, folder: Path | None) -> int:
    try:
        try:
            writable = memory_file("launch", content, _MFD_EXEC)
        except OSError as error:
            if error.errno == errno.EINVAL:
                # Linux before 6.3 does not know the flag, and needs none.
                writable = memory_file("launch", content)
            elif folder is not None:
                writable = _nameless_file(folder, content)
            else:
                raise
        try:
            # A file that somebody may write is not executed.
            return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(writable)
    except OSError as error:
        raise SandboxUnavailableError(f"no program can be made of memory: {error}") from error


def _nameless_file(folder: Path, content: bytes) -> int:
    """Return a program of a folder whose name is gone already: nobody else opens it, and nothing has to be removed."""
    import tempfile  # noqa: PLC0415 - for a kernel that executes nothing of memory

    fd, path = tempfile.mkstemp(dir=folder)
    try:
        os.unlink(path)  # noqa: PTH108
        os.fchmod(fd, _PROGRAM)
        os.write(fd, content)
    except BaseException:
        os.close(fd)
        raise
    return fd
