"""The durable steps of a job, and who is killed at each."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from random import Random

from tests.chaos.installation import AGENT, DAEMON, SERVER, Installation
from tests.chaos.job_mix import PlannedJob, lines, planned
from tests.waiting import wait_until

BODY = 'echo "1 line 1"; sleep 0.6; echo "1 line 2"'
"""Prints long before its end, so that its log is streamed on a busy host, too, and something is left for the report."""


CALL_S = 60.0


@dataclass(frozen=True)
class Step:
    """One moment and who dies at it."""

    point: str
    moment: str
    victims: tuple[str, ...]
    attempts: int
    """How many the job may need then."""

    def __str__(self) -> str:
        return f"{self.moment}-{self.point}-{'+'.join(self.victims)}"


SHORT = [
    Step(
        "submit", "after", (SERVER,), 2
    ),  # stored and claimed in one commit, neither answered nor sent
    Step("claim", "after", (SERVER,), 2),  # assigned, not sent
    Step("attempt", "before", (AGENT,), 2),  # received, not started
    Step("exec", "after", (AGENT,), 2),  # the command runs
    Step("exec", "after", (DAEMON,), 2),
    Step("log-append", "after", (SERVER,), 1),  # stored, not acknowledged
    Step("seal", "after", (AGENT,), 1),  # the end is in the spool, not reported
    Step("cancel", "after", (SERVER,), 1),  # stored, not told
    Step("finish", "before", (SERVER,), 1),  # reported, not stored
    Step("finish", "before", (AGENT,), 1),
    Step("finish", "after", (SERVER,), 1),  # stored, not acknowledged
    Step("finish", "after", (AGENT, SERVER), 1),
]
"""For every run of the tests."""

_MOMENTS = [
    ("submit", "before", 1),
    ("submit", "after", 2),  # a claim shares its commit
    ("claim", "before", 1),
    ("claim", "after", 2),
    ("attempt", "before", 2),
    ("exec", "before", 2),
    ("exec", "after", 2),
    ("spool-write", "before", 2),
    ("spool-write", "after", 2),
    ("log-append", "before", 2),
    ("log-append", "after", 2),
    ("log-acknowledged", "before", 2),
    ("log-acknowledged", "after", 2),
    ("seal", "before", 2),
    ("seal", "after", 1),
    ("finish", "before", 1),
    ("finish", "after", 1),
    ("cancel", "before", 2),
    ("cancel", "after", 2),
    ("end-predecessors", "before", 3),  # of an agent-runner that died before
    ("end-predecessors", "after", 3),
    ("destroy", "before", 1),
    ("spool-remove", "before", 1),
    ("spool-remove", "after", 1),
]
_LATE = ("seal", "finish", "destroy", "spool-remove")
_VICTIMS = [(SERVER,), (AGENT,), (DAEMON,), (SERVER, AGENT), (DAEMON, SERVER), (DAEMON, AGENT)]

EVERY = [
    # Before the end is in the spool, who kills the agent-runner may take an attempt that it was just given.
    Step(point, moment, victims, max(attempts, 1 if victims == (SERVER,) or point in _LATE else 2))
    for point, moment, attempts in _MOMENTS
    for victims in _VICTIMS
]
"""Each process and each pair at each moment, for the long run."""


def die_at(step: Step) -> None:
    """Let a job pass a step in an installation of its own; raises AssertionError with what the oracle objects to."""
    cancelled = step.point == "cancel"
    job = (
        planned(1, "cancelled", Random(1))
        if cancelled
        else PlannedJob(1, "steps", BODY, lines(1, 2))
    )
    with Installation(faults=True) as installation:

        def submit_and_cancel() -> None:
            installation.submit(job)
            if cancelled or step.point == "end-predecessors":
                wait_until(lambda: installation.witness.of(job.job_id), CALL_S, "the job runs")
            if cancelled:
                installation.client.cancel(job.job_id)
            if step.point == "end-predecessors":
                installation.kill(AGENT)

        # In a thread: it is not answered before what dies with it was started again.
        calling = threading.Thread(target=submit_and_cancel, daemon=True)
        with installation.armed(step.point, step.moment, *step.victims):
            calling.start()
        calling.join(CALL_S)
        assert not calling.is_alive(), "a call was never answered"
        ended = installation.client.wait(job.job_id)
        objections = installation.judge([job]).objections
        if ended.attempt > step.attempts:
            objections.append(f"needed {ended.attempt} attempts: {list(ended.attempts)}")
        assert not objections, "\n".join([*objections, installation.instance.tails()])
