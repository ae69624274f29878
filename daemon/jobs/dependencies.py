"""The check of ``depends_on`` that both stores share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent_runner.errors import InvalidJobSpecError


def check_known(depends_on: Sequence[str], known: Callable[[str], bool]) -> None:
    """Check that every job that a new one depends on exists.

    Raises:
        InvalidJobSpecError: One does not; names the first.
    """
    for position, job_id in enumerate(depends_on):
        if not known(job_id):
            raise InvalidJobSpecError(
                f"depends_on.{position}", f"no job has the id {job_id} (any more)"
            )
