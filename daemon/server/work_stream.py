"""The server's end of one Work stream: what is to be sent, and the wake-up of the one task that sends."""

from __future__ import annotations

import asyncio
from collections import deque

from daemon.errors import DaemonError
from daemon.jobs.models import Claim, LeaseRef
from daemon.server.convert import assignment_to_pb, lease_to_pb
from runner.v1 import agent_service_pb2 as pb

WELCOME = pb.WorkResponse(welcome=pb.WorkWelcome())


class WorkStream:
    """Made per call of Work. What waits in it is bounded by the slots and leases of its agent-runner."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.ended = False
        self.error: DaemonError | None = None
        self._claims: deque[Claim] = deque()
        self._notices: deque[pb.WorkResponse] = deque()

    def welcome(self) -> None:
        """Say that the stream is open."""
        self._notice(WELCOME)

    def assign(self, claims: list[Claim]) -> None:
        """Give attempts to the agent-runner."""
        self._claims.extend(claims)
        self.woken.set()

    def cancel(self, lease: LeaseRef) -> None:
        """Ask for the end of an attempt; an assignment that is still here goes out before it."""
        self._flush()
        self._notice(pb.WorkResponse(cancel=pb.CancelAttempt(lease=lease_to_pb(lease))))

    def lease_lost(self, lease: LeaseRef) -> None:
        """Tell that a lease is held no more."""
        self._notice(pb.WorkResponse(lease_lost=lease_to_pb(lease)))

    def end(self, error: DaemonError | None = None) -> None:
        """End the stream after what waits in it; the first reason counts."""
        if not self.ended:
            self.ended = True
            self.error = error
        self.woken.set()

    def next(self) -> pb.WorkResponse | None:
        """Return what is to be sent now, if anything."""
        if self._notices:
            return self._notices.popleft()
        return assignment_to_pb(self._claims.popleft()) if self._claims else None

    def take_unsent(self) -> list[LeaseRef]:
        """Return the leases that the agent-runner cannot know, and forget them."""
        leases = [claim.lease for claim in self._claims]
        self._claims.clear()
        return leases

    def _flush(self) -> None:
        while self._claims:
            self._notices.append(assignment_to_pb(self._claims.popleft()))

    def _notice(self, response: pb.WorkResponse) -> None:
        self._notices.append(response)
        self.woken.set()
