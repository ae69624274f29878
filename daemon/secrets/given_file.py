"""Reads and writes what a person names as a file: also a descriptor of this process, such as the ``/dev/fd/63`` of a shell's ``<(…)``.

Such a name leads through ``/proc/self``, which belongs to root once the process is not dumpable (proc(5)), hence the number is taken from it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from daemon.errors import UsageError

_INPUT = {"/dev/stdin": 0, "-": 0}
_OUTPUT = {"/dev/stdout": 1, "/dev/stderr": 2, "-": 1}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,9})")


def open_given(path: Path, option: str) -> BinaryIO:
    """Return a file open for reading, which the caller closes. A descriptor is not inherited by children.

    Args:
        path: As it was given; ``-`` is standard input.
        option: What to call it in the message.

    Raises:
        UsageError: It cannot be opened.
    """
    fd = _named_descriptor(path, _INPUT)
    try:
        return path.open("rb") if fd is None else os.fdopen(os.dup(fd), "rb")
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from None


def read_given(path: Path, option: str, max_bytes: int) -> bytes:
    """Return the whole content of a file that a person names.

    Raises:
        UsageError: It cannot be read, or is longer than ``max_bytes``.
    """
    with open_given(path, option) as file:
        return read_bounded(file, f"{option} {path}", max_bytes)


def read_bounded(file: BinaryIO, where: str, max_bytes: int) -> bytes:
    """Return what is left of a file.

    Raises:
        UsageError: It cannot be read, is longer than ``max_bytes``, or is a terminal, which would show what is typed.
    """
    if file.isatty():
        raise UsageError(f"{where}: a terminal would show what is typed; leave the option away")
    try:
        data = file.read(max_bytes + 1)
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}") from None
    if len(data) > max_bytes:
        raise UsageError(f"{where}: longer than {max_bytes:,} bytes")
    return data


def write_given(path: Path, content: bytes, option: str, *, overwrite: bool) -> None:
    """Write a file that a person names, with mode 0600 from its first byte, whole or not at all.

    Raises:
        UsageError: It is there already and not to be overwritten, or is a terminal, or cannot be made.
        OSError: It cannot be written; what was there is still there.
    """
    fd = _named_descriptor(path, _OUTPUT)
    if fd is not None:
        if os.isatty(fd):
            raise UsageError(f"{option}: not to a terminal; write to a file or a pipe")
        write_all(fd, content)
        return
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            os.link(temporary, path)
    except FileExistsError:
        raise UsageError(f"{option} {path}: exists already; --force overwrites it") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_all(fd: int, content: bytes) -> None:
    """Write everything to an open descriptor, past the buffers of the interpreter.

    Raises:
        OSError: It cannot be written.
    """
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _named_descriptor(path: Path, streams: Mapping[str, int]) -> int | None:
    match = _DESCRIPTOR.fullmatch(str(path))
    return int(match[1]) if match else streams.get(str(path))


def without_line_end(data: bytes) -> bytes:
    """Return the data without one line end, LF or CRLF, which an editor or ``echo`` has added."""
    return data.removesuffix(b"\r\n") if data.endswith(b"\r\n") else data.removesuffix(b"\n")
