"""P17 to P19: how long the commands of the runner take, against an interpreter that does nothing."""

from __future__ import annotations

import statistics
from contextlib import ExitStack

from benchmarks import floors
from benchmarks.goals import Goal, Group, Reading
from benchmarks.installation import RUNNER, Installation
from benchmarks.throughput import PLAIN


class Commands(Group):
    """Each command in turn with the floor."""

    goals = (
        Goal("P17", "runner --help vs python -c pass", 5, 3),
        Goal("P17", "runner --version, the same", 5, 3),
        Goal("P18", "runner local status, the same", 7, 5),
        Goal("P19", "runner jobs submit, the same", 14, 10),
        Goal("P19", "runner jobs logs, the same", 14, 10),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start an installation and let it run a job whose log can be read."""
        installation = stack.enter_context(Installation(self.plan, *PLAIN))
        self._env = installation.env
        submit = ("jobs", "submit")
        job = installation.run(*submit, "--wait", "--", "/bin/echo", "hi").split()[0]
        self._commands = (
            ("--help",),
            ("--version",),
            ("local", "status"),
            (*submit, "--", floors.TRUE),
            ("jobs", "logs", job),
        )
        for command in self._commands:
            floors.command_ms((RUNNER, *command), self._env)

    def round(self) -> list[Reading]:
        """All in turn, several times; medians."""
        floor: list[float] = []
        times: list[list[float]] = [[] for _ in self._commands]
        for _ in range(self.plan.amount(7, 4)):
            for command, found in zip(self._commands, times, strict=True):
                floor.append(floors.command_ms(floors.PASS, self._env))
                found.append(floors.command_ms((RUNNER, *command), self._env))
        least = statistics.median(floor)
        return [
            Reading(
                statistics.median(found) / least,
                f"{statistics.median(found):.0f} of {least:.1f} ms",
            )
            for found in times
        ]
