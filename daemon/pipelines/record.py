"""What is kept of a run of a pipeline, so that it can be drawn later: one JSON file in the state directory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.errors import UsageError
from daemon.jobs.models import Job

KEPT = 100
"""Records of earlier runs."""
SUFFIX = ".json"

Record = dict[str, Any]


class Records:
    """The folder of records."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which need not exist."""
        self._folder = folder

    def save(self, record: Record) -> None:
        """Write a record so that it is whole or as it was; called whenever something has changed.

        Raises:
            OSError: It cannot be written.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{record['id']}{SUFFIX}"
        temporary = path.with_suffix(f".{os.getpid()}.new")
        with open(temporary, "w", encoding="utf-8", opener=_private) as file:
            json.dump(record, file, indent=1)
        temporary.replace(path)
        for old in self._paths()[:-KEPT]:
            old.unlink(missing_ok=True)

    def load(self, run_id: str | None, name: str | None = None) -> Record:
        """Return a record; the last one, or the last of a pipeline, if no id is given.

        Raises:
            UsageError: There is none.
        """
        for path in reversed(self._paths()):
            if run_id is not None and path.name != f"{run_id}{SUFFIX}":
                continue
            record = _read(path)
            if record is not None and (run_id is not None or name in (None, record["name"])):
                return record
        what = (
            f"run {run_id}"
            if run_id
            else f"run of pipeline {name}"
            if name
            else "run of a pipeline"
        )
        raise UsageError(f"there is no record of a {what}")

    def has(self, name: str) -> bool:
        """Tell whether there is a record of a pipeline."""
        records = map(_read, self._paths())
        return any(record is not None and record["name"] == name for record in records)

    def _paths(self) -> list[Path]:
        # The ids sort by time.
        return sorted(self._folder.glob(f"*{SUFFIX}")) if self._folder.is_dir() else []


def _read(path: Path) -> Record | None:
    """Return a record; None if it is damaged, or was removed meanwhile."""
    try:
        record: Record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return record if "name" in record else None


def new_record(
    run_id: str, name: str, *, submitted: bool, jobs: Sequence[Mapping[str, Any]]
) -> Record:
    """Return a record."""
    return {"id": run_id, "name": name, "submitted": submitted, "jobs": [dict(job) for job in jobs]}


def rows_of(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Return the jobs of a local run as the record has them: in the words of ``runner jobs show``."""
    return [
        {
            "id": job.id,
            "name": job.spec.name,
            "state": str(job.state),
            "end_reason": None if job.end_reason is None else str(job.end_reason),
            "exit_code": job.exit_code,
            "message": job.message,
            "attempt": job.attempt,
            "start_time": _time(job.start_us),
            "end_time": _time(job.end_us),
            "depends_on": list(job.spec.depends_on),
            "condition": job.spec.condition or "all_success",
            "parent": job.parent_id or None,
        }
        for job in jobs
    ]


def _time(time_us: int | None) -> str | None:
    if time_us is None:
        return None
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat().replace("+00:00", "Z")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
