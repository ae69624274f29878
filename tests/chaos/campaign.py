"""A random run: jobs are submitted and cancelled while processes are killed and frozen, all by one seed."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.installation import AGENT, DAEMON, SERVER, Installation
from tests.chaos.job_mix import PlannedJob, mix
from tests.chaos.oracle import Verdict
from tests.waiting import wait_until

DEATHS_OF_A_CHILD = 3
"""Per life of a daemon: it gives a child up after five quick deaths (DESIGN §2), which is another test."""
QUEUED = 40
"""Strikes wait while more jobs than this are under way, or the jobs would be at the end what they were not at first."""
LEASE_S = 30.0


@dataclass(frozen=True)
class Strike:
    """One blow: kills, or with ``frozen_s`` a SIGSTOP and a SIGCONT after it."""

    victims: tuple[str, ...]
    pause_s: float
    """Comes before it."""
    frozen_s: float = 0.0


def strikes(kills: int, rng: random.Random) -> list[Strike]:
    """Plan so many kills at least: lives of a daemon, each with some deaths of its children, and pairs among them."""
    planned: list[Strike] = []
    count = 0
    while count < kills:
        left = Counter({SERVER: DEATHS_OF_A_CHILD, AGENT: DEATHS_OF_A_CHILD})
        for _ in range(rng.randint(1, 5)):
            victims = rng.choice([(SERVER,), (AGENT,), (SERVER, AGENT), (AGENT, SERVER)])
            if all(left[victim] for victim in victims):
                left.subtract(victims)
                planned.append(Strike(victims, rng.uniform(0, 1.5)))
                count += len(victims)
        last = rng.choice([(DAEMON,), (DAEMON,), (DAEMON, AGENT), (SERVER, DAEMON)])
        planned.append(Strike(last, rng.uniform(0, 1.5)))
        count += len(last)
    return planned


def with_freezes(plan: list[Strike], agent: int, server: int, rng: random.Random) -> list[Strike]:
    """Add freezes of the agent-runner beyond its lease, and short ones of the server, at random places."""
    freezes = [Strike((AGENT,), 0.5, LEASE_S + 4)] * agent + [Strike((SERVER,), 0.2, 3)] * server
    for freeze in freezes:
        plan.insert(rng.randrange(len(plan)), freeze)
    return plan


@dataclass
class Campaign:
    """One run on one installation. ``run`` once."""

    installation: Installation
    jobs: list[PlannedJob]
    plan: list[Strike]
    freezes: list[tuple[float, float]] = field(default_factory=list)
    """When an agent-runner stood still, and until when that may show."""
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._struck = 0
        self._submitted: list[PlannedJob] = []
        self._due: list[tuple[float, PlannedJob]] = []
        self._all_submitted = threading.Event()

    def run(self) -> Verdict:
        """Strike while the jobs run; return what the oracle says of it."""
        threads = [
            threading.Thread(target=self._guarded, args=(work,), daemon=True)
            for work in (self._submit, self._cancel)
        ]
        for thread in threads:
            thread.start()
        for strike in self.plan:
            self._strike(strike)
        for thread in threads:
            thread.join(300)
            if thread.is_alive():
                self.problems.append("the jobs were not taken within 300 s after the last strike")
        verdict = self.installation.judge(self._submitted, freezes=self.freezes)
        verdict.objections += self.problems
        return verdict

    def _guarded(self, work) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - a thread's end must not pass unseen
            self.problems.append(f"{work.__name__}: {error!r}")
            self._all_submitted.set()

    def _strike(self, strike: Strike) -> None:
        wait_until(lambda: self._under_way() <= QUEUED or self.problems, 180, "the queue shrinks")
        time.sleep(strike.pause_s)
        for victim in strike.victims:
            self.installation.wait_pid(victim)
        if strike.frozen_s:
            self._freeze(strike)
        else:
            self.installation.kill(*strike.victims)
        self._struck += 1

    def _freeze(self, strike: Strike) -> None:
        # One that is just starting would be given up and ended: it never said that it is ready.
        self.installation.wait_ready()
        begin = time.monotonic()
        try:
            self.installation.stop_for(strike.victims[0], strike.frozen_s)
        finally:
            if strike.victims[0] == AGENT:
                # What it left running ends when it learns that its leases are gone.
                self.freezes.append((begin, time.monotonic() + 10))

    def _under_way(self) -> int:
        return len(self._submitted) - len(self.installation.watcher.ended())

    def _submit(self) -> None:
        for index, job in enumerate(self.jobs):
            # As many are submitted as their share of the strikes, and a few ahead.
            self._wait_struck((index - 10) * len(self.plan) / len(self.jobs))
            self.installation.submit(job)
            self._submitted.append(job)
            if job.cancel_after_s is not None:
                self._due.append((time.monotonic() + job.cancel_after_s, job))
        self._all_submitted.set()

    def _wait_struck(self, count: float) -> None:
        wait_until(lambda: self._struck >= count or self.problems, 600, "the strikes")

    def _cancel(self) -> None:
        while self._due or not self._all_submitted.is_set():
            now = time.monotonic()
            for entry in [entry for entry in self._due if entry[0] <= now]:
                self._due.remove(entry)
                if not self.installation.client.cancel(entry[1].job_id):
                    entry[1].ended_before_cancel = True
            time.sleep(0.02)


def campaign(installation: Installation, seed: int, jobs: int, kills: int) -> Campaign:
    """Return the run of a seed: the same jobs, the same strikes, in the same order."""
    rng = random.Random(seed)
    return Campaign(installation, mix(jobs, rng), strikes(kills, rng))
