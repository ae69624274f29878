"""The slots of one agent-runner: how many attempts run at once, and for how long one waits that came ahead of its slot."""

from __future__ import annotations

import asyncio
from collections import deque

from agent_runner.attempt_control import AttemptControl, StopReason

WAIT_S = 0.05
"""How long an attempt waits for a slot before it goes back. The server gives one ahead only where slots come free every few
milliseconds; a job that stands behind a long one is better off in the queue, where priorities and other agent-runners are."""


class Slots:
    """Handed out in the order in which they are asked for. Used on one event loop."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken: dict[AttemptControl, bool] = {}
        """Whose they are, and whether the attempt has ended and only its sandbox is still removed."""
        self._waiting: deque[tuple[AttemptControl, asyncio.Future[bool]]] = deque()

    @property
    def wanted(self) -> bool:
        """Tell whether an attempt waits for one, so that the next one has work whenever it comes free."""
        return any(not turn.done() for _, turn in self._waiting)

    async def take(self, control: AttemptControl) -> bool:
        """Wait for a slot, but for a moment only if it came ahead of one; called once per attempt, and ``leave`` after it.

        Returns False if none came free in time, or if the attempt is to end, for which it needs none.
        """
        if len(self._taken) < self._count:
            self._taken[control] = False
            return True
        if control.reason is not None:
            return False
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((control, turn))
        loop.call_later(WAIT_S, self._give_up, turn)
        control.on_request = lambda: _settle(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            self.leave(control)
            raise
        finally:
            control.on_request = None

    def end(self, control: AttemptControl) -> None:
        """Note that an attempt has ended: the server counts on its slot, which is left when the sandbox has gone."""
        if control in self._taken:
            self._taken[control] = True

    def leave(self, control: AttemptControl) -> None:
        """Give back the slot of an attempt, if it has one: the next one that waits has it, or it is free. Idempotent."""
        if self._taken.pop(control, None) is None:
            return
        while self._waiting:
            next_, turn = self._waiting.popleft()
            if not turn.done():
                self._taken[next_] = False
                turn.set_result(True)
                return

    def _give_up(self, turn: asyncio.Future[bool]) -> None:
        if turn.done():
            return
        waiting = [other for _, other in self._waiting if not other.done()]
        if waiting.index(turn) < self._ending():
            # It did not come ahead: the server knows of a free slot, which is free once a sandbox has gone, however long that takes.
            turn.get_loop().call_later(WAIT_S, self._give_up, turn)
        else:
            turn.set_result(False)

    def _ending(self) -> int:
        return sum(
            ended or control.reason is StopReason.LOST for control, ended in self._taken.items()
        )


def _settle(turn: asyncio.Future[bool]) -> None:
    if not turn.done():
        turn.set_result(False)
