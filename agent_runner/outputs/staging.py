"""The contents of one attempt's outputs on the agent-runner's disk, by digest, until the server has them all.

The folder lies beside the spool of the attempt and outlives this process like it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sandbox.collection import Read

PIECE_BYTES = 1 << 20
_NEW = "new"
"""The file that is written; no digest is called so."""


class Content(NamedTuple):
    """What one output or more hold."""

    sha256: str
    size: int


class TooLargeError(Exception):
    """There is more to store than there may be."""


class StagingFailedError(Exception):
    """The disk does not take an output; says why."""


class StagedOutputs:
    """One folder, made with the first content; one writer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, read: Read, limit_bytes: int) -> Content:
        """Store what is read to its end; runs on a thread. Of what fails nothing is kept.

        Raises:
            TooLargeError: It is more than ``limit_bytes``.
            StagingFailedError: The disk is full or broken.
            OSError: It cannot be read.
        """
        new = self._folder / _NEW
        with _of_the_disk():
            with contextlib.suppress(FileExistsError):
                self._folder.mkdir(mode=0o700)
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            content = _copy(read, fd, limit_bytes)
            with _of_the_disk():
                new.rename(self._folder / content.sha256)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        return content

    def path(self, sha256: str) -> Path:
        """Return the file of a content."""
        return self._folder / sha256

    def remove(self) -> None:
        """Remove everything. Idempotent; the next start removes what cannot be removed now."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _copy(read: Read, fd: int, limit_bytes: int) -> Content:
    digest, size = hashlib.sha256(), 0
    while piece := read(PIECE_BYTES):
        size += len(piece)
        if size > limit_bytes:
            raise TooLargeError
        digest.update(piece)
        rest = memoryview(piece)
        with _of_the_disk():
            while rest:
                rest = rest[os.write(fd, rest) :]
    return Content(digest.hexdigest(), size)


@contextlib.contextmanager
def _of_the_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StagingFailedError(error.strerror or str(error)) from error
