"""Request ids: what makes a repeated submit harmless."""

from __future__ import annotations

from daemon.errors import RequestIdReusedError
from daemon.jobs.models import NewJob


def check_payload(new: NewJob, known_sha256: str) -> None:
    """Check that a submit with a known request id repeats the first one.

    Raises:
        RequestIdReusedError: It asks for something else.
    """
    if new.payload_sha256 != known_sha256:
        raise RequestIdReusedError(
            f"request id {new.request_id!r} was used for another job: "
            "repeat it with the same job, or use a new request id"
        )
