"""Where a relative ``source_path`` leads."""

from __future__ import annotations

from pathlib import Path

JOBS_FOLDER = "jobs"
"""A project keeps its job files in a folder of this name; nobody means that folder by ``.``."""


def source_path(base_dir: Path, path: str) -> str:
    """Return the absolute path of a source: relative to the folder of the job file, and ``.`` in ``jobs`` is the folder around it."""
    folder = base_dir.absolute()
    if folder.name == JOBS_FOLDER and path.rstrip("/") == ".":
        return str(folder.parent)
    return str(folder / path)
