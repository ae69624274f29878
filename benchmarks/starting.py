"""P20: how soon a server that is being started answers, and gives its first job to an agent-runner."""

from __future__ import annotations

import statistics
import subprocess
import time
from contextlib import ExitStack

from benchmarks import floors
from benchmarks.client_process import ClientProcess
from benchmarks.goals import Goal, Group, Reading
from benchmarks.installation import Installation

_ARMED_S = 0.05


class Starting(Group):
    """With the default settings, in a state directory that was used before."""

    goals = (
        Goal("P20", "local start to an answer, vs python -c pass", 20, 10),
        Goal("P20", "local start to the first job leased, the same", 35, 16),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start and stop once, so that token and database are there."""
        self._client = stack.enter_context(ClientProcess())
        self._installation = stack.enter_context(Installation(self.plan))
        self._installation.stop()

    def round(self) -> list[Reading]:
        """Several starts; medians."""
        floor, found = [], []
        for _ in range(self.plan.amount(3, 2)):
            floor += [floors.command_ms(floors.PASS) for _ in range(3)]
            found.append(self._start())
        least = statistics.median(floor)
        return [
            Reading(statistics.median(times) / least, f"{statistics.median(times):.0f} ms")
            for times in zip(*found, strict=True)
        ]

    def _start(self) -> list[float]:
        state = self._installation.state
        self._client.begin(
            "first_lease",
            socket=str(state.server_socket),
            token=str(state.token),
            argv=[floors.TRUE],
        )
        time.sleep(_ARMED_S)
        start = time.monotonic()
        starting = subprocess.Popen(
            self._installation.start_command,
            env=self._installation.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            found = [(moment - start) * 1000 for moment in self._client.result()]
        finally:
            starting.wait()
            self._installation.stop()
        return found
