"""The server's end of one Work stream: what is to be sent, and the wake-up of the one task that sends.

What was said since the last message goes out as one message: under load a message costs far more than what is in it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from daemon.errors import DaemonError
from daemon.jobs.models import Claim, LeaseRef
from daemon.server.convert import assignment_to_pb, lease_to_pb
from runner.v1 import agent_service_pb2 as pb

MAX_MESSAGE_BYTES = 2 << 20
"""Of assignments before the last one, which holds at most 1 MiB; a message holds 4 MiB."""


class WorkStream:
    """Made per call of Work. What waits in it is bounded by the slots and leases of its agent-runner."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.ended = False
        self.error: DaemonError | None = None
        self._claims: deque[Claim] = deque()
        self._said = pb.WorkResponse()
        self._any = False
        """Whether ``_said`` holds anything."""

    def welcome(self) -> None:
        """Say that the stream is open."""
        self._said.welcome.SetInParent()
        self._wake()

    def assign(self, claims: Sequence[Claim]) -> None:
        """Give attempts to the agent-runner, in one message with the answers to the reports whose commit they share."""
        if claims:
            self._claims.extend(claims)
            self.woken.set()

    def accept(self, lease: pb.LeaseRef) -> None:
        """Answer a report: the end is durable."""
        self._said.ended.append(lease)
        self._answered()

    def refuse(self, lease: pb.LeaseRef) -> None:
        """Answer a report: the end was not accepted. Why says the call that repeats it."""
        self._said.refused.append(lease)
        self._answered()

    def cancel(self, lease: LeaseRef) -> None:
        """Ask for the end of an attempt; an assignment that is still here goes out before it."""
        self._said.cancels.append(lease_to_pb(lease))
        self._wake()

    def lease_lost(self, lease: LeaseRef) -> None:
        """Tell that a lease is held no more."""
        self._said.lost.append(lease_to_pb(lease))
        self._wake()

    def inspect(self, lease: LeaseRef, inspection: int) -> None:
        """Ask what runs in the sandbox of an attempt."""
        self._said.inspects.add(lease=lease_to_pb(lease), inspection=inspection)
        self._wake()

    def end(self, error: DaemonError | None = None) -> None:
        """End the stream after what waits in it; the first reason counts."""
        if not self.ended:
            self.ended = True
            self.error = error
        self.woken.set()

    def next(self) -> pb.WorkResponse | None:
        """Return what is to be sent now, if anything."""
        if not self._any and not self._claims:
            return None
        assignments = self._pack()
        if self._claims:
            # Too large for one message. What else was said may be about what is still here, so it comes after it.
            return pb.WorkResponse(assignments=assignments)
        said, self._said, self._any = self._said, pb.WorkResponse(), False
        said.assignments.extend(assignments)
        return said

    def take_unsent(self) -> list[LeaseRef]:
        """Return the leases that the agent-runner cannot know, and forget them."""
        leases = [claim.lease for claim in self._claims]
        self._claims.clear()
        return leases

    def _pack(self) -> list[pb.Assignment]:
        assignments = []
        size = 0
        while self._claims and size < MAX_MESSAGE_BYTES:
            assignment = assignment_to_pb(self._claims.popleft())
            assignments.append(assignment)
            size += assignment.ByteSize()
        return assignments

    def _answered(self) -> None:
        if not self._any:
            self._any = True
            # In the next turn of the loop: an assignment of the same commit takes it along, and without one nobody waits
            # for it, but somebody for the event of the end.
            asyncio.get_running_loop().call_soon(self._wake_if_any)

    def _wake_if_any(self) -> None:
        if self._any:
            self.woken.set()

    def _wake(self) -> None:
        self._any = True
        self.woken.set()
