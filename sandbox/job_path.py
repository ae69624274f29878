"""Paths below the job root, as callers of a sandbox name them."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import PurePosixPath

from sandbox.env import JOB_ROOT, has_bytes
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


def mapped(path: str, job_root: str) -> str:
    """Return a path of the job file as it is where ``/job`` cannot be mounted."""
    below = _below_job(path)
    return path if below is None else job_root + below


@lru_cache(maxsize=64)  # each job asks for four, nearly all for the same
def _below_job(path: str) -> str | None:
    """Return what of a path comes after ``/job``; None if it is elsewhere."""
    normal = os.path.normpath(path)
    if normal == JOB_ROOT or normal.startswith(f"{JOB_ROOT}/"):
        return normal[len(JOB_ROOT) :]
    return None
