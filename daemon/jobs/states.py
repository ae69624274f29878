"""The positions of a job and the moves between them. Imports nothing of ours: everything may import it."""

from __future__ import annotations

import enum


class JobState(enum.StrEnum):
    """Where a job is. The comment on each says who moves it on."""

    PENDING = "PENDING"  # the dispatcher, when an agent-runner has a free slot; or a cancel
    BLOCKED = "BLOCKED"  # the server, when what it depends on has ended; or a cancel
    RUNNING = "RUNNING"  # its agent-runner by finish; the reaper when the lease ends; or a cancel
    CANCELLING = "CANCELLING"  # its agent-runner by finish; the reaper when the lease ends
    SUCCEEDED = "SUCCEEDED"  # final
    FAILED = "FAILED"  # final
    CANCELLED = "CANCELLED"  # final

    @property
    def final(self) -> bool:
        """Tell whether nothing can move the job on."""
        return not MOVES[self]

    @property
    def leased(self) -> bool:
        """Tell whether an agent-runner holds the job."""
        return self in (JobState.RUNNING, JobState.CANCELLING)


MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.PENDING: frozenset({JobState.RUNNING, JobState.CANCELLED}),
    JobState.BLOCKED: frozenset({JobState.PENDING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset(
        {
            JobState.PENDING,
            JobState.CANCELLING,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELLED,
        }
    ),
    JobState.CANCELLING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


def move(old: JobState, new: JobState) -> JobState:
    """Return ``new`` if a job may go there from ``old``; the one gate for every change of state.

    Raises:
        RuntimeError: The move does not exist, which is a defect of the caller.
    """
    if new not in MOVES[old]:
        raise RuntimeError(f"a job cannot move from {old} to {new}")
    return new
