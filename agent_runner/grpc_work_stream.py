"""The agent-runner's end of one Work stream: everything that is said goes through one sender, many things in one message."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from agent_runner import wire
from agent_runner.client import (
    Assigned,
    CancelAsked,
    Inspection,
    InspectionAsked,
    Lease,
    LeaseEnded,
    Message,
    Welcome,
)
from agent_runner.errors import AgentRunnerError, ServerUnavailableError
from agent_runner.grpc_calls import lease_from_pb, lease_to_pb, raise_status, send
from agent_runner.offering import Offer
from runner.v1 import agent_service_pb2 as pb
from runner.v1 import job_pb2
from sandbox.base import LiveProcess

MAX_MESSAGE_BYTES = 2 << 20
"""Of reports and inspections before the last one, which holds at most 1 MiB; a message holds 4 MiB."""
MAX_WHY_CHARS = 1000
REPORT_TIMEOUT_S = 20.0
HOLD_S = 0.01
"""How long a report waits at most: for the answer to those before it, or while it is not urgent. What is reported while an
answer is under way goes out together, so one report is never late and many cost little (RFC 896 does the same for small segments)."""


class GrpcWorkStream:
    """A Work stream over gRPC, after its hello."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._said = pb.WorkRequest()
        """What is to be sent besides reports and inspections."""
        self._reports: deque[tuple[Lease, pb.FinishAttemptRequest]] = deque()
        self._inspections: deque[pb.AttemptProcesses] = deque()
        self._answers: dict[Lease, tuple[asyncio.Future[bool], float]] = {}
        """What is waited for, and until when by the loop's time; the oldest first."""
        self._giving_up: asyncio.TimerHandle | None = None
        self._unanswered: set[Lease] = set()
        """Reports that were sent last."""
        self._holding: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self._failure: AgentRunnerError | None = None
        """Why nothing can be sent any more."""
        self._ended = False

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what the server says."""
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                self._answer(response.ended, accepted=True)
                self._answer(response.refused, accepted=False)
                for message in _messages(response):
                    yield message
        except grpc.aio.AioRpcError as error:
            raise_status(error)
        finally:
            self._end()
        raise ServerUnavailableError("the job server ended the stream")

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Renew leases."""
        del self._said.renew[:]
        self._said.renew.extend(map(lease_to_pb, leases))
        await self._send()

    async def drain(self) -> None:
        """Ask for no more assignments."""
        self._said.drain = True
        await self._send()

    async def offer(self, offer: Offer) -> None:
        """Say which jobs are taken from now on."""
        self._said.offer.CopyFrom(offer_to_pb(offer))
        self._said.offer.SetInParent()  # an offer of everything is empty
        await self._send()

    async def answer(self, inspection: Inspection) -> None:
        """Tell what runs in the sandbox of an attempt."""
        self._inspections.append(
            pb.AttemptProcesses(
                inspection=inspection.number,
                processes=map(_process_to_pb, inspection.processes),
                unknown=inspection.unknown,
            )
        )
        await self._send()

    def report(
        self, lease: Lease, request: pb.FinishAttemptRequest, *, urgent: bool = True
    ) -> asyncio.Future[bool]:
        """Report the end of an attempt; False if it was not accepted, or nobody knows, so it is to be repeated by a call."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()
        if self._ended or lease in self._answers:
            answer.set_result(False)
            return answer
        self._answers[lease] = answer, loop.time() + REPORT_TIMEOUT_S
        self._reports.append((lease, request))
        if self._giving_up is None:
            self._giving_up = loop.call_later(REPORT_TIMEOUT_S, self._give_up)
        if urgent and not self._unanswered:
            self._start()
        elif self._holding is None:
            self._holding = loop.call_later(HOLD_S, self._release)
        return answer

    def close(self) -> None:
        """End the stream at once."""
        self._end()
        self._call.cancel()

    async def _send(self) -> None:
        await asyncio.shield(self._start())
        if self._failure is not None:
            raise self._failure

    def _start(self) -> asyncio.Task[None]:
        """Have everything sent that was said until the sender's next turn."""
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all())
        return self._sending

    async def _send_all(self) -> None:
        try:
            while (said := self._next()) is not None:
                await send(self._call, said)
        except AgentRunnerError as error:
            # Nobody may be waiting for it; the reader of the same stream learns it too.
            self._failure = error
            self._end()

    def _next(self) -> pb.WorkRequest | None:
        """Return what is to be sent now, if anything."""
        reports = () if self._unanswered else self._reports
        if not reports and not self._inspections and not self._said.ByteSize():
            return None
        said, self._said = self._said, pb.WorkRequest()
        size = 0
        while reports and size < MAX_MESSAGE_BYTES:
            lease, report = self._reports.popleft()
            said.reports.append(report)
            self._unanswered.add(lease)
            size += report.ByteSize()
        while self._inspections and size < MAX_MESSAGE_BYTES:
            inspection = self._inspections.popleft()
            said.processes.append(inspection)
            size += inspection.ByteSize()
        return said

    def _answer(self, leases: Sequence[pb.LeaseRef], *, accepted: bool) -> None:
        for lease in map(lease_from_pb, leases):
            self._unanswered.discard(lease)
            if lease in self._answers:
                self._settle(lease, accepted=accepted)
        if leases and self._reports and not self._unanswered:
            self._release()

    def _release(self) -> None:
        """Send what was held back."""
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None
        self._unanswered.clear()
        if self._reports:
            self._start()

    def _give_up(self) -> None:
        """Let those ask by a call who have waited too long for an answer; one timer serves all reports."""
        self._giving_up = None
        loop = asyncio.get_running_loop()
        for lease, (_, until) in list(self._answers.items()):
            if until > loop.time():
                self._giving_up = loop.call_at(until, self._give_up)
                break
            self._settle(lease, accepted=False)

    def _end(self) -> None:
        """Let everybody who waits for an answer ask by a call."""
        self._ended = True
        self._reports.clear()
        self._inspections.clear()
        for timer in (self._holding, self._giving_up):
            if timer is not None:
                timer.cancel()
        for lease in list(self._answers):
            self._settle(lease, accepted=False)

    def _settle(self, lease: Lease, *, accepted: bool) -> None:
        answer, _ = self._answers.pop(lease)
        if not answer.done():  # whoever waited may have been cancelled
            answer.set_result(accepted)


def offer_to_pb(offer: Offer) -> pb.WorkOffer:
    """Return an offer as it is sent."""
    return pb.WorkOffer(
        no_containers=offer.no_containers[:MAX_WHY_CHARS], local_projects=offer.local_projects
    )


def _messages(response: pb.WorkResponse) -> Iterator[Message]:
    """Return what a message says, in the order in which it is to be read."""
    if response.HasField("welcome"):
        yield Welcome()
    for assignment in response.assignments:
        spec = wire.job_spec_from_pb(assignment.spec)
        yield Assigned(lease=lease_from_pb(assignment.lease), spec=spec)
    for lease in response.cancels:
        yield CancelAsked(lease=lease_from_pb(lease))
    for lease in response.lost:
        yield LeaseEnded(lease=lease_from_pb(lease))
    for asked in response.inspects:
        yield InspectionAsked(lease=lease_from_pb(asked.lease), number=asked.inspection)


def _process_to_pb(process: LiveProcess) -> job_pb2.LiveProcess:
    start_s, start_micros = divmod(round(process.start_s * 1_000_000), 1_000_000)
    return job_pb2.LiveProcess(
        pid=process.pid,
        parent_pid=process.parent_pid,
        command=process.command,
        state=process.state,
        cpu_usage=wire.duration_to_pb(process.cpu_s),
        start_time=Timestamp(seconds=start_s, nanos=start_micros * 1000),
    )
