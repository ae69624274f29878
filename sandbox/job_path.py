"""Paths below the job root, as callers of a sandbox name them."""

from __future__ import annotations

from pathlib import PurePosixPath

from sandbox.env import has_bytes
from sandbox.errors import TransferRefusedError


def path_parts(path: str) -> tuple[str, ...]:
    """Return the names of a path relative to the job root. Called for every upload and download, by every backend.

    Raises:
        TransferRefusedError: It is absolute, leaves the job root, or is one that no file system has.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\0" in path or not has_bytes(path):
        raise TransferRefusedError(f"{path!r} is no path below the job root")
    return pure.parts
