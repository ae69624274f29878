"""The jobs of a chaos run: what each does, and what must be seen of it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from runner.v1 import job_pb2, job_service_pb2
from tests.chaos.witness import Witness

SECRET = "CHAOS_KEY"
CANARY = "canary-" + "q7" * 12
KINDS = ("nothing", "short", "long", "chatty", "failing", "sleeping", "secret", "cancelled")
WEIGHTS = (20, 25, 8, 12, 12, 10, 5, 8)
FOREVER_LINES = 3000


@dataclass
class PlannedJob:
    """One job and its fate: ``job_id`` once the submit is acknowledged."""

    number: int
    kind: str
    body: str
    expected: bytes
    """The whole log."""
    exit_code: int = 0
    cancel_after_s: float | None = None
    job_id: str = ""
    ended_before_cancel: bool = False

    @property
    def request_id(self) -> str:
        return f"chaos-{self.number}"

    def request(self, witness: Witness) -> job_service_pb2.SubmitJobRequest:
        spec = job_pb2.JobSpec(name=f"{self.kind}-{self.number}")
        spec.argv.extend(["/bin/bash", "-c", witness.script(self.body)])
        if self.kind == "secret":
            spec.env[SECRET] = f"${{secret:local:{SECRET}}}"
        return job_service_pb2.SubmitJobRequest(spec=spec, request_id=self.request_id)


def lines(number: int, count: int) -> bytes:
    """Return what ``count`` numbered lines of a job look like."""
    return b"".join(b"%d line %d\n" % (number, i) for i in range(1, count + 1))


def planned(number: int, kind: str, rng: random.Random) -> PlannedJob:
    """Return one job of a kind; what is random about it comes from ``rng`` alone."""
    counts = {"long": (20_000, 120_000), "chatty": (20, 60), "sleeping": (1, 1), "nothing": (0, 0)}
    count = rng.randint(*counts.get(kind, (1, 9)))
    expected = lines(number, count)
    body = f'seq -f "{number} line %.0f" 1 {count}'
    exit_code = 0
    if kind == "failing":
        exit_code = rng.randint(1, 90)
        body += f"; (exit {exit_code})"
    elif kind == "chatty":
        body = line_by_line(number, count, 0.03)
    elif kind == "sleeping":
        body += f"; sleep {rng.uniform(0.2, 2.5):.2f}"
    elif kind == "secret":
        body, expected = f'echo "{number} ${SECRET}"', b"%d ***\n" % number
    elif kind == "cancelled":
        body = line_by_line(number, FOREVER_LINES, 0.05)
        expected = lines(number, FOREVER_LINES)
    job = PlannedJob(number, kind, body, expected, exit_code)
    if kind == "cancelled":
        job.cancel_after_s = rng.uniform(0, 1.5)
    return job


def line_by_line(number: int, count: int, pause_s: float) -> str:
    """Return a command that prints what ``lines`` returns, with a pause after each line."""
    return f'for ((i=1; i<={count}; i++)); do echo "{number} line $i"; sleep {pause_s}; done'


def mix(count: int, rng: random.Random) -> list[PlannedJob]:
    """Return the jobs of one run."""
    kinds = rng.choices(KINDS, WEIGHTS, k=count)
    return [planned(number, kind, rng) for number, kind in enumerate(kinds, 1)]
