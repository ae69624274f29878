"""The DaemonClient port: everything that an agent-runner says to the job server, in domain values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from agent_runner.job_inputs import InputPiece
from agent_runner.job_spec import JobSpec
from agent_runner.offering import EVERYTHING, Offer
from agent_runner.outcome import Outcome, SandboxRecord
from sandbox.base import LiveProcess


class Lease(NamedTuple):
    """The exclusive right to one attempt."""

    job_id: str
    attempt: int
    token: str


class Welcome:
    """The server knows this stream; assignments may follow."""


class Assigned(NamedTuple):
    """An attempt was given to this agent-runner."""

    lease: Lease
    spec: JobSpec


class CancelAsked(NamedTuple):
    """The job of a running attempt was cancelled."""

    lease: Lease


class LeaseEnded(NamedTuple):
    """A lease is held no more."""

    lease: Lease


class InspectionAsked(NamedTuple):
    """Somebody wants to know what runs in the sandbox of an attempt."""

    lease: Lease
    number: int
    """Goes back with the answer."""


Message = Welcome | Assigned | CancelAsked | LeaseEnded | InspectionAsked


class Inspection(NamedTuple):
    """The answer to ``InspectionAsked``."""

    number: int
    processes: Sequence[LiveProcess] = ()
    """Their commands are masked."""
    unknown: str = ""
    """Why there are none, where that has a reason."""


class Registration(NamedTuple):
    """How the server wants an agent-runner to behave."""

    renew_s: float


class WorkStream(Protocol):
    """One open Work stream."""

    def messages(self) -> AsyncIterator[Message]:
        """Yield what the server says until the stream ends.

        Raises:
            ServerUnavailableError: It ended and may be opened again.
            ServerRefusedError: The server does not want this agent-runner.
        """
        ...

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Renew leases. Raises as ``messages``."""
        ...

    async def drain(self) -> None:
        """Ask for no more assignments. Raises as ``messages``."""
        ...

    async def offer(self, offer: Offer) -> None:
        """Say which jobs are taken from now on. Raises as ``messages``."""
        ...

    async def answer(self, inspection: Inspection) -> None:
        """Tell what runs in the sandbox of an attempt. Raises as ``messages``."""
        ...

    def close(self) -> None:
        """End the stream at once. Idempotent."""
        ...


class LogStream(Protocol):
    """One open AppendLog stream."""

    async def send(self, offset: int, data: bytes) -> None:
        """Send bytes; waits while the connection is full."""
        ...

    def acknowledgements(self) -> AsyncIterator[int]:
        """Yield how much the server has: at once after opening, then in each MiB and where no piece follows.

        Raises:
            ServerUnavailableError, LeaseLostError, LogGapError: As ``DaemonClient.finish``.
        """
        ...

    async def end(self) -> None:
        """Say that nothing follows. Acknowledgements end after the last piece."""
        ...

    def close(self) -> None:
        """End the stream at once. Idempotent."""
        ...


class DaemonClient(Protocol):
    """The job server, seen from an agent-runner. Used concurrently on one event loop."""

    async def register(
        self, slots: int, labels: dict[str, str], sandbox: SandboxRecord
    ) -> Registration:
        """Make this start of the agent-runner known; called once per connection.

        Raises:
            ServerUnavailableError, ServerRefusedError.
        """
        ...

    async def work(
        self, active: Sequence[Lease], draining: bool, offer: Offer = EVERYTHING
    ) -> WorkStream:
        """Open the Work stream."""
        ...

    async def append_log(self, lease: Lease) -> LogStream:
        """Open an AppendLog stream for one attempt."""
        ...

    async def store_contents(self, lease: Lease, contents: Mapping[str, Path]) -> None:
        """Bring the contents of outputs, by digest, to the server, which may have some; before ``finish``.

        Raises:
            ServerUnavailableError, LeaseLostError: As ``finish``.
            ArtifactNotWrittenError: The server cannot store one.
            ServerRefusedError: The server takes no outputs.
            OSError: One cannot be read.
        """
        ...

    def read_inputs(self, lease: Lease) -> AsyncGenerator[InputPiece, None]:
        """Yield the outputs of other jobs that the job of an attempt asks for.

        Raises:
            InputMissingError: It depends on no such job.
            ServerUnavailableError, LeaseLostError: As ``finish``.
        """
        ...

    def report(
        self,
        lease: Lease,
        outcome: Outcome,
        log_offset: int,
        log_tail: bytes,
        *,
        urgent: bool = True,
    ) -> asyncio.Future[bool]:
        """Put the end of an attempt on the Work stream, which sends it in the next turn of the loop, or soon if it is not urgent.

        Returns what tells whether the server has accepted it. False also means that nobody knows: ``finish`` then.
        """
        ...

    async def finish(
        self, lease: Lease, outcome: Outcome, log_offset: int, log_tail: bytes
    ) -> None:
        """Report the end of an attempt by a call, which says why it is refused; repeated until it succeeds.

        Raises:
            ServerUnavailableError: Repeat it later.
            LeaseLostError: Drop it.
            LogGapError: Send the log from where the server says first.
        """
        ...

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        ...
