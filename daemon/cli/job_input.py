"""Reads the text of a job file from where the user named it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from daemon.errors import UsageError

MAX_JOB_FILE_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class JobDocument:
    """The text of a job file, unread."""

    name: str
    """As the user typed it; stands in error messages."""
    content: bytes
    base_dir: Path
    """Where relative paths in the file start."""


def read_job_file(name: str) -> JobDocument:
    """Return the text of a job file; ``-`` is standard input.

    Raises:
        UsageError: It cannot be read, or is larger than any job file.
    """
    try:
        if name == "-":
            content = sys.stdin.buffer.read(MAX_JOB_FILE_BYTES + 1)
            document = JobDocument("stdin", content, Path.cwd())
        else:
            path = Path(name)
            with path.open("rb") as file:
                content = file.read(MAX_JOB_FILE_BYTES + 1)
            document = JobDocument(name, content, path.absolute().parent)
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from error
    if len(content) > MAX_JOB_FILE_BYTES:
        raise UsageError(f"{name} is larger than a job file may be (256 KiB)")
    return document
