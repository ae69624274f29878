"""Starts, watches, restarts and stops the children of the daemon.

Nothing counts as stopped before everything that a child left behind has gone too, and nothing that a dead
child left may run beside its replacement.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from daemon.supervisor.leftovers import Leftovers
from daemon.supervisor.process import ChildFailedError, ManagedProcess
from daemon.supervisor.restarts import FIRST_DELAY_S, MAX_QUICK_DEATHS, RestartBudget
from daemon.supervisor.spawning import SpawnedChild
from daemon.supervisor.states import ProcessState, move
from daemon.supervisor.stop_ladder import CANCEL_MARGIN_S, StopLadder, Urgency

READY_DEADLINE_S = 20.0
TAIL_LINES = 20

Report = Callable[[dict[str, Any]], None]
logger = logging.getLogger(__name__)


class Supervisor:
    """Runs the children of one daemon. Made once; ``start``, then ``stop``, each called once.

    Used by the event loop only.
    """

    def __init__(  # noqa: PLR0913 - the bounds, which tests make short
        self,
        processes: Sequence[ManagedProcess],
        early: Mapping[str, SpawnedChild] | None = None,
        *,
        spared: AbstractSet[int] = frozenset(),
        ready_deadline_s: float = READY_DEADLINE_S,
        first_delay_s: float = FIRST_DELAY_S,
        cancel_margin_s: float = CANCEL_MARGIN_S,
    ) -> None:
        """Take the children in the order in which they are to be ready; they stop in reverse.

        ``early`` are those that were spawned before the event loop ran, by name; ``spared`` are children of
        this process that it had before, and that are never touched.
        """
        self.processes = tuple(processes)
        self._ready_deadline_s = ready_deadline_s
        self._budgets = {p.spec.name: RestartBudget(first_delay_s) for p in processes}
        self._early = dict(early or {})
        self._leftovers = Leftovers(self._known, spared)
        self._ladder = StopLadder(self._leftovers, cancel_margin_s=cancel_margin_s)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._sweep: asyncio.Task[list[str]] | None = None
        self._started = False
        self._stopping: set[str] = set()
        """The children whose turn to stop has come; until then a dead one is started again."""

    def adopt(self) -> None:
        """Take the early children over; called first, so that ``stop`` finds them whatever comes next."""
        for process in self.processes:
            child = self._early.pop(process.spec.name, None)
            if child is not None:
                process.start(self._exited, child)

    async def start(self, report: Report) -> None:
        """Start every child at once and return when all are ready; reports each, in order.

        Raises:
            ChildFailedError: One did not become ready. The caller stops the others.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._leftovers.reap)
        deadline = loop.time() + self._ready_deadline_s
        for process in self.processes:
            if process.state is ProcessState.STOPPED:
                self._start_first(process)
        for process in self.processes:
            facts = await self._first_facts(process, deadline)
            report({**facts, "process": process.spec.name, "pid": process.pid, "state": "ready"})
        self._started = True

    def status(self) -> dict[str, Any]:
        """Return the entry of every child."""
        return {process.spec.name: process.describe() for process in self.processes}

    def hurry(self, urgency: Urgency) -> None:
        """Make the stop, whether it goes on or is to come, at least so urgent."""
        self._ladder.hurry(urgency)

    async def stop(self, drain_timeout_s: float, report: Report) -> list[str]:
        """Stop every child, last one first, and everything they left; return what survived KILL.

        A child whose turn has not come is still kept alive: one that drains reports to it.
        Safe when ``start`` has failed or was never called.
        """
        survivors = []
        if any(process.state is ProcessState.FATAL for process in self.processes):
            # What drains would wait for somebody who does not come back; its results stay in the spool.
            self._ladder.hurry(Urgency.CANCEL)
        for process in reversed(self.processes):
            name = process.spec.name
            self._stopping.add(name)
            if name in self._timers:
                self._timers.pop(name).cancel()
            if process.pid is not None:
                report({"process": name, "pid": process.pid, "state": "stopping"})
            survivors += await self._ladder.stop(process, drain_timeout_s, report)
            report({"process": name, "state": process.state.value.lower()})
        survivors += [f"leftover pid {text}" for text in await self._leftovers.sweep()]
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        return survivors

    def _known(self) -> set[int]:
        early = {child.pid for child in self._early.values()}
        return early | {process.pid for process in self.processes if process.pid is not None}

    def _start_first(self, process: ManagedProcess) -> None:
        name = process.spec.name
        try:
            process.start(self._exited)
        except OSError as error:
            raise ChildFailedError(name, f"cannot be started: {error}", "") from error

    async def _first_facts(self, process: ManagedProcess, deadline: float) -> dict[str, Any]:
        """Wait until this child is ready; the failure of any child ends the wait of all."""
        loop = asyncio.get_running_loop()
        while True:
            for other in self.processes:
                if other.problem is not None:
                    raise ChildFailedError(
                        other.spec.name, other.problem, other.log.tail(TAIL_LINES)
                    )
            if process.ready is not None and process.ready.done():
                return process.ready.result()
            futures = [future for p in self.processes for future in (p.ready, p.exited)]
            pending = [future for future in futures if future is not None and not future.done()]
            left = deadline - loop.time()
            if left <= 0:
                problem = f"is not ready after {self._ready_deadline_s:g} s"
                raise ChildFailedError(process.spec.name, problem, process.log.tail(TAIL_LINES))
            await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    def _exited(self, process: ManagedProcess) -> None:
        """Decide what comes after a child's end; called by the child itself, in the same step."""
        name = process.spec.name
        if name in self._stopping or not self._started:
            return
        if process.spec.leaves_orphans:
            self._leftovers.kill_once()
            self._sweep = asyncio.get_running_loop().create_task(self._leftovers.sweep())
        delay_s = self._budgets[name].delay_after_death(process.up_s())
        if delay_s is None:
            self._give_up(process)
        elif delay_s == 0:
            self._restart(process)
        else:
            process.state = move(process.state, ProcessState.BACKOFF)
            loop = asyncio.get_running_loop()
            self._timers[name] = loop.call_later(delay_s, self._restart, process)

    def _give_up(self, process: ManagedProcess) -> None:
        process.state = move(process.state, ProcessState.FATAL)
        if self._stopping:
            self._ladder.hurry(Urgency.CANCEL)  # whoever drains would report to nobody
        problem = process.problem or process.last_exit
        process.reason = f"{MAX_QUICK_DEATHS} quick deaths, the last one: {problem}"
        logger.error(
            "A process died too often and is not started again",
            extra={"action": "process_fatal", "child": process.spec.name, "reason": process.reason},
        )

    def _restart(self, process: ManagedProcess) -> None:
        process.restarts += 1
        try:
            process.start(self._exited)
        except OSError as error:
            logger.exception(
                "A process cannot be started",
                extra={"action": "process_start_failed", "child": process.spec.name},
            )
            process.last_exit = f"cannot be started: {error.strerror}"
            self._retry_later(process)
            return
        loop = asyncio.get_running_loop()
        ready, name = process.ready, process.spec.name

        def overdue() -> None:
            if process.ready is ready and process.state is ProcessState.STARTING:  # the same start
                process.fail(f"is not ready after {self._ready_deadline_s:g} s")

        self._timers[name] = loop.call_later(self._ready_deadline_s, overdue)

    def _retry_later(self, process: ManagedProcess) -> None:
        """Count a start that did not even spawn as a death."""
        delay_s = self._budgets[process.spec.name].delay_after_death(0.0)
        if delay_s is None:
            self._give_up(process)
            return
        if process.state is ProcessState.EXITED:
            process.state = move(process.state, ProcessState.BACKOFF)
        loop = asyncio.get_running_loop()
        self._timers[process.spec.name] = loop.call_later(
            max(delay_s, FIRST_DELAY_S), self._restart, process
        )
