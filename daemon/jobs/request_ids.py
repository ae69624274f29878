"""Request ids: what makes a repeated submit harmless."""

from __future__ import annotations

from daemon.errors import RequestIdReusedError

LINE_FEED = "\n"
"""Ends the project of a request id: see ``queue_keys``."""


def check_payload(request_id: str | None, payload_sha256: str, known_sha256: str) -> None:
    """Check that a submit with a known request id repeats the first one.

    Raises:
        RequestIdReusedError: It asks for something else.
    """
    if payload_sha256 != known_sha256:
        raise RequestIdReusedError(
            f"request id {(request_id or '').rpartition(LINE_FEED)[2]!r} was used for another job: "
            "repeat it with the same job, or use a new request id"
        )
