"""Hides the jobs of other projects: to whoever has no token for it, a job does not exist.

Looked at once, for every method that there is or will be, by the names of the fields in which requests name jobs.
"""

from __future__ import annotations

from typing import Any

from daemon.errors import JobNotFoundError
from daemon.jobs.store import JobStore
from daemon.server.caller import Caller


async def check_visible(store: JobStore, caller: Caller, request: Any) -> None:
    """Check that each job which a request names exists for its caller; called per call, before its method runs.

    Raises:
        JobNotFoundError: One does not; in the words for one that nobody has.
    """
    if caller.projects is None:
        return
    named = [getattr(request, "job_id", ""), *getattr(request, "job_ids", ())]
    job_ids = [job_id for job_id in named if job_id]
    if not job_ids:
        return
    seen = await store.in_projects(job_ids, caller.projects)
    for job_id in job_ids:
        if job_id not in seen:
            raise JobNotFoundError(f"no job has the id {job_id!r}")
