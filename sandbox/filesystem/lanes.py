"""Lanes: what sandboxes that live one after the other share, and those that live at the same time do not.

A lane is a user of the host, if this process is root's, and the folders that an earlier sandbox of the lane
left untouched. Distinct users keep jobs that live at the same time from signalling, tracing and limiting
each other, and from each other's folders, by path or by an open descriptor.
"""

from __future__ import annotations

import heapq
import logging
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxBrokenError
from sandbox.filesystem.job_users import JobUsers
from sandbox.filesystem.workspace_pool import WorkspacePool

JOB_UIDS = range(64123, 64123 + 1000)
"""Users and groups of the commands of a runner that root started; no distribution hands them out."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """Of one sandbox at a time."""

    number: int
    uid: int | None
    """User and group of its commands; None: those of this process."""
    pool: WorkspacePool


class Lanes:
    """The lanes of one provider, made when they are needed. Used on one event loop only."""

    def __init__(self, root: Path, uids: range | None) -> None:
        """Remember where workspaces are, and whose they are; None: this process' own user, in any number."""
        self._root = root
        self._uids = uids
        self._users = JobUsers()
        self._made = 0
        self._lanes: dict[int, Lane] = {}
        self._free: list[int] = []
        self._avoided: frozenset[int] = frozenset()

    def take(self) -> Lane:
        """Return the lowest free lane; called once per sandbox.

        Raises:
            SandboxBrokenError: Every user of the range has a sandbox, or had one that left survivors.
        """
        if self._free:
            return self._lanes[heapq.heappop(self._free)]
        number = self._made
        while self._uids is not None and number < len(self._uids):
            if self._uids[number] not in self._avoided and self._users.reserve(self._uids[number]):
                break
            number += 1
        if self._uids is not None and number >= len(self._uids):
            raise SandboxBrokenError(
                f"every user from {self._uids[0]} to {self._uids[-1]} is taken"
            )
        uid = None if self._uids is None else self._uids[number]
        lane = Lane(number, uid, WorkspacePool(self._root, uid))
        self._made = number + 1
        self._lanes[number] = lane
        return lane

    def avoid(self, uids: frozenset[int]) -> None:
        """Hand out none of these users: somebody else has processes of them. Called before the first ``take``."""
        self._avoided = uids

    def give_back(self, lane: Lane) -> None:
        """Let the next sandbox have a lane. Called once per ``take``, when nothing of its sandbox lives."""
        heapq.heappush(self._free, lane.number)

    def retire(self, lane: Lane) -> None:
        """Never hand out a lane again: something of its sandbox may live. Called instead of ``give_back``."""
        del self._lanes[lane.number]
        lane.pool.close()
        if lane.uid is not None:
            logger.warning(
                "A user of jobs is not used again: its last sandbox was not seen dead",
                extra={"action": "job_user_retired", "uid": lane.uid},
            )

    def spares(self) -> list[str]:
        """Return the names of the folders that wait for a sandbox."""
        return [name for lane in self._lanes.values() for name in lane.pool.spares()]

    def close(self) -> None:
        """Remove the folders that wait. Idempotent."""
        for lane in self._lanes.values():
            lane.pool.close()
        self._users.close()
