"""How a child is brought to its end: TERM, for some a second TERM, KILL; then whatever it left.

Each rung ends at once when the child has ended or somebody is in more of a hurry.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from daemon.supervisor.leftovers import Leftovers
from daemon.supervisor.process import ManagedProcess
from daemon.supervisor.states import ProcessState, move
from sandbox import procfs

KILL_BOUND_S = 5.0
CANCEL_MARGIN_S = 5.0
REPORT_PERIOD_S = 2.0
_TAKEN_BOUND_S = 1.0
_TAKEN_PAUSE_S = 0.02

Report = Callable[[dict[str, Any]], None]
logger = logging.getLogger(__name__)


class Urgency(IntEnum):
    """How a stop treats work that is going on."""

    DRAIN = 0
    CANCEL = 1
    KILL = 2


class StopLadder:
    """Stops children one after the other. One per daemon; used by the event loop only."""

    def __init__(
        self,
        leftovers: Leftovers,
        kill_bound_s: float = KILL_BOUND_S,
        cancel_margin_s: float = CANCEL_MARGIN_S,
    ) -> None:
        self._leftovers = leftovers
        self._kill_bound_s = kill_bound_s
        self._cancel_margin_s = cancel_margin_s
        self._report: Report = _nobody
        self._urgency = Urgency.DRAIN
        self._hurried = asyncio.Event()

    def hurry(self, urgency: Urgency) -> None:
        """Make this stop, whether it goes on or is to come, at least so urgent."""
        if urgency > self._urgency:
            self._urgency = urgency
            self._hurried.set()

    async def stop(
        self, process: ManagedProcess, drain_timeout_s: float, report: Report
    ) -> list[str]:
        """End one child and what it left; return what survived KILL, as ``name pid N (command)``.

        A child that is not alive is no error. ``report`` hears every two seconds that the stop goes on.
        """
        self._report = report
        survivors = []
        if process.pid is not None:
            process.state = move(process.state, ProcessState.STOPPING)
            if not await self._climb(process, drain_timeout_s):
                command = procfs.command_line(process.pid)
                survivors.append(f"{process.spec.name} pid {process.pid} ({command})")
        elif process.state is not ProcessState.STOPPED:
            process.state = move(process.state, ProcessState.STOPPED)
        if process.spec.leaves_orphans:
            found = await self._leftovers.sweep(self._kill_bound_s)
            survivors += [f"leftover of {process.spec.name} pid {text}" for text in found]
        return survivors

    async def _climb(self, process: ManagedProcess, drain_timeout_s: float) -> bool:
        grace_s = process.spec.grace_s + self._cancel_margin_s
        if self._urgency < Urgency.KILL:
            process.send_signal(signal.SIGTERM)
            if process.spec.drains:
                if await self._ended(process, drain_timeout_s, unless=Urgency.CANCEL):
                    return True
                await self._second_term(process)
            if await self._ended(process, grace_s, unless=Urgency.KILL):
                return True
        logger.warning(
            "A process did not end in time and is killed",
            extra={
                "action": "process_killed",
                "child": process.spec.name,
                "child_pid": process.pid,
            },
        )
        process.kill()
        return await self._ended(process, self._kill_bound_s, unless=None)

    async def _second_term(self, process: ManagedProcess) -> None:
        """Send another TERM once the first was taken; two that wait are one (signal(7))."""
        deadline = asyncio.get_running_loop().time() + _TAKEN_BOUND_S
        while process.signal_pending(signal.SIGTERM):
            if asyncio.get_running_loop().time() >= deadline:
                break
            await asyncio.sleep(_TAKEN_PAUSE_S)
        process.send_signal(signal.SIGTERM)

    async def _ended(self, process: ManagedProcess, bound_s: float, unless: Urgency | None) -> bool:
        """Wait for the end of a child; False when time is up or the stop is so urgent."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + bound_s
        while process.exited is not None and not process.exited.done():
            left = deadline - loop.time()
            if left <= 0 or (unless is not None and self._urgency >= unless):
                return False
            report_at = loop.time() + REPORT_PERIOD_S
            self._hurried.clear()
            hurried = asyncio.ensure_future(self._hurried.wait())
            try:
                await asyncio.wait(
                    (process.exited, hurried),
                    timeout=min(left, REPORT_PERIOD_S),
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                hurried.cancel()
            if loop.time() >= report_at:
                self._report(
                    {"process": process.spec.name, "pid": process.pid, "state": "stopping"}
                )
        return True


def _nobody(_line: dict[str, Any]) -> None:
    """Hear nothing."""
