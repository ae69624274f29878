"""Asks agent-runners what runs in the sandboxes of their attempts, over the Work streams that are open anyway."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable

from daemon.jobs.models import LeaseRef
from daemon.server.work_stream import WorkStream
from runner.v1 import agent_service_pb2 as pb

ANSWER_BOUND_S = 2.0
MAX_WAITING = 100
"""Questions under way at once. Each costs its agent-runner a look at every process of its host."""


class Inspections:
    """One per server; used on its event loop."""

    def __init__(self, bound_s: float = ANSWER_BOUND_S) -> None:
        self._bound_s = bound_s
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[WorkStream, asyncio.Future[pb.AttemptProcesses]]] = {}

    async def ask(self, stream: WorkStream, lease: LeaseRef) -> pb.AttemptProcesses:
        """Return what runs for a lease, or why that is not known; called per ExplainJob of a running job. Bounded by 2 s."""
        if len(self._waiting) >= MAX_WAITING:
            return _unknown("too many ask at this moment")
        number = next(self._numbers)
        answer: asyncio.Future[pb.AttemptProcesses] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (stream, answer)
        stream.inspect(lease, number)
        try:
            async with asyncio.timeout(self._bound_s):
                return await answer
        except TimeoutError:
            return _unknown(
                f"its agent-runner gave no answer within {self._bound_s:g} s; one of an older version gives none"
            )
        finally:
            del self._waiting[number]

    def answered(self, stream: WorkStream, answers: Iterable[pb.AttemptProcesses]) -> None:
        """Take what an agent-runner says; what nobody waits for any more is dropped."""
        for answer in answers:
            asked_of, waiting = self._waiting.get(answer.inspection, (None, None))
            if asked_of is stream and waiting is not None and not waiting.done():
                waiting.set_result(answer)

    def disconnected(self, stream: WorkStream) -> None:
        """Let nobody wait for a stream that has ended; called once per stream."""
        for asked_of, waiting in self._waiting.values():
            if asked_of is stream and not waiting.done():
                waiting.set_result(_unknown("its agent-runner lost the connection meanwhile"))


def _unknown(why: str) -> pb.AttemptProcesses:
    return pb.AttemptProcesses(unknown=why)
