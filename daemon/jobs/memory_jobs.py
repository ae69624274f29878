"""The jobs of the memory store and what a change of one does to the tables and to other jobs."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

from agent_runner.outcome import Outcome, OutputFile
from daemon.clock import Clock
from daemon.jobs import lifecycle
from daemon.jobs.leases import ended_by, is_held, lease_lost
from daemon.jobs.memory_events import MemoryEvents
from daemon.jobs.memory_queue import MemoryQueue
from daemon.jobs.memory_views import dependents_after
from daemon.jobs.models import Attempt, Job, LeaseRef, NewJob, QueueChange
from daemon.jobs.queue_keys import is_of
from daemon.jobs.states import JobState
from daemon.jobs.workflows import GivenOutput, checked_output, may_trigger
from daemon.tokens.memory_tokens import MemoryTokens


class MemoryJobs:
    """The tables; ``MemoryJobStore`` is made of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._seqs: dict[str, int] = {}
        self._by_seq: list[str] = []
        self._requests: dict[str, NewJob] = {}
        self._attempts: dict[str, list[Attempt]] = {}
        self._live: dict[str, Attempt] = {}
        self._artifacts: dict[tuple[str, int], list[OutputFile]] = {}
        self._events = MemoryEvents()
        self._counts: Counter[JobState] = Counter()
        self._queue = MemoryQueue(self._job_at)
        self._removed_logs: dict[str, int] = {}
        self._outputs: dict[str, str] = {}
        self._dependents: dict[str, list[str]] = {}
        self._listener: Callable[[QueueChange], None] | None = None
        self.tokens = MemoryTokens()

    def listen(self, listener: Callable[[QueueChange], None]) -> None:
        """Have each change tell what else it brought about."""
        self._listener = listener

    def _accept(self, new: NewJob) -> None:
        self._by_seq.append(new.id)
        self._seqs[new.id] = len(self._by_seq)
        states = {job_id: self._jobs[job_id].state for job_id in new.spec.depends_on}
        job = lifecycle.submitted(new, states, self._clock.now_us())
        if not job.state.final:
            for job_id in new.spec.depends_on:
                self._dependents.setdefault(job_id, []).append(job.id)
        self._store_change(job)
        if job.ready_us is not None:
            self._tell(QueueChange(timed=True))

    def _job_at(self, seq: int) -> Job | None:
        return self._jobs.get(self._by_seq[seq - 1])

    def _attempt(self, lease: LeaseRef) -> Attempt | None:
        attempts = self._attempts.get(lease.job_id, [])
        return attempts[lease.attempt - 1] if 0 < lease.attempt <= len(attempts) else None

    def _held(self, lease: LeaseRef) -> Attempt:
        attempt = self._attempt(lease)
        if attempt is None or not is_held(lease, attempt):
            raise lease_lost(lease)
        return attempt

    def _finish(self, lease: LeaseRef, outcome: Outcome, triggered: Sequence[NewJob]) -> Job:
        attempt = self._attempt(lease)
        if ended_by(lease, attempt, outcome):
            return self._jobs[lease.job_id]
        held = self._held(lease)
        job = self._jobs[lease.job_id]
        outputs = partial(self._workflow_outputs, job.spec.project)
        outcome = checked_output(job, outcome, outputs)
        ended, ended_attempt = lifecycle.finished(
            job, held, outcome, self._clock.now_us(), self._clock.steady_us()
        )
        if outcome.workflow_output and ended.state.final:
            self._outputs[job.id] = outcome.workflow_output
        self._save_attempt(ended_attempt)
        if outcome.outputs.files:
            self._artifacts[lease.job_id, lease.attempt] = sorted(outcome.outputs.files)
        self._save(ended)
        if triggered and may_trigger(ended):
            for new in triggered:
                self._accept(new)
            moved = tuple(self._jobs[new.id] for new in triggered)
            claimable = any(child.state is JobState.PENDING for child in moved)
            self._tell(QueueChange(jobs=moved, claimable=claimable))
        return ended

    def _lose(self, attempts: Iterable[Attempt]) -> list[Job]:
        jobs = []
        for attempt in sorted(attempts, key=self._seq_of):
            job = self._jobs[attempt.job_id]
            lost, lost_attempt = lifecycle.lost(job, attempt, self._clock.now_us())
            self._save_attempt(lost_attempt)
            self._save(lost)
            jobs.append(lost)
        return jobs

    def _seq_of(self, attempt: Attempt) -> int:
        return self._seqs[attempt.job_id]

    def _save_attempt(self, attempt: Attempt) -> None:
        self._attempts[attempt.job_id][attempt.number - 1] = attempt
        if attempt.state.leased:
            self._live[attempt.job_id] = attempt
        else:
            self._live.pop(attempt.job_id)

    def _save(self, job: Job) -> None:
        """Store a job that has changed its state, and what follows from that for others."""
        self._store_change(job)
        moved: list[Job] = []
        ended = deque((job,) if job.state.final else ())
        while ended:
            for other in self._after_end_of(ended.popleft()):
                self._store_change(other)
                moved.append(other)
                if other.state.final:
                    ended.append(other)
        freed = job.spec.concurrency is not None and job.state is not JobState.RUNNING
        released = any(other.state is JobState.PENDING for other in moved)
        timed = any(other.ready_us is not None for other in (job, *moved))
        if moved or freed or timed:
            self._tell(QueueChange(jobs=tuple(moved), claimable=freed or released, timed=timed))

    def _after_end_of(self, ended: Job) -> list[Job]:
        waiting = (self._jobs[job_id] for job_id in self._dependents.get(ended.id, ()))
        return dependents_after(ended, waiting, self._jobs, self._clock.now_us())

    def _removable(self, spared: Collection[str]) -> list[Job]:
        kept = {*spared, *self._by_seq[-1:], self._events.newest_job_id()}
        for job_id, dependents in self._dependents.items():
            if any(not self._jobs[i].state.final for i in dependents):
                kept.add(job_id)
        return [job for job in self._jobs.values() if job.state.final and job.id not in kept]

    def _remove(self, job: Job) -> None:
        del self._jobs[job.id], self._seqs[job.id]
        self._attempts.pop(job.id, None)
        for number in range(1, job.attempt + 1):
            self._artifacts.pop((job.id, number), None)
        self._dependents.pop(job.id, None)
        self._outputs.pop(job.id, None)
        for other in job.spec.depends_on:
            dependents = self._dependents.get(other, [])
            if job.id in dependents:
                dependents.remove(job.id)
        self._counts[job.state] -= 1
        self._events.remove(job.id)
        self._requests = {name: new for name, new in self._requests.items() if new.id != job.id}
        if job.attempt:
            self._removed_logs[job.id] = job.attempt

    def _workflow_outputs(self, project: str, workflow_id: str) -> list[GivenOutput]:
        given = []
        for job_id, output in self._outputs.items():
            job = self._jobs[job_id]
            if not is_of(job.spec, (project,)) or job.spec.workflow is None:
                continue
            if job.spec.workflow.id == workflow_id:
                given.append(GivenOutput(job_id, job.spec.name, output))
        return given

    def _outputs_of(self, job_id: str) -> list[OutputFile]:
        return [
            file for (each, _), files in self._artifacts.items() if each == job_id for file in files
        ]

    def _timed(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.ready_us is not None]

    def _now_us(self, job: Job) -> int:
        return self._clock.steady_us() if job.backoff_us else self._clock.now_us()

    def _tell(self, change: QueueChange) -> None:
        if self._listener is not None:
            self._listener(change)

    def _store_change(self, job: Job) -> None:
        before = self._jobs.get(job.id)
        if before is not None:
            self._counts[before.state] -= 1
        self._counts[job.state] += 1
        self._jobs[job.id] = job
        self._queue.moved(before, job, self._seqs[job.id])
        self._events.add(job, self._clock.now_us())
