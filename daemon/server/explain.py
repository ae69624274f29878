"""Answers ExplainJob: what a job waits on, what of it runs, how it ended, and what happens next by itself.

Called when a person asks, so it may look at much; it changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent_runner import wire
from agent_runner.workflow_spec import ALWAYS, ANY_FAILED
from daemon.clock import Clock
from daemon.errors import JobNotFoundError, StoreUnusableError
from daemon.jobs.log_files import LogFiles
from daemon.jobs.models import Attempt, Job
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from daemon.server.agent_session import AgentSession
from daemon.server.caller import CALLER
from daemon.server.convert import job_to_pb
from daemon.server.dispatcher import Dispatcher
from daemon.server.inspection import Inspections
from daemon.server.log_reader import LogReader
from daemon.server.next_steps import NextStep, Running, end_sentence, next_of_running
from daemon.server.queue_waits import (
    Holding,
    Wait,
    fits,
    place_waits,
    slot_wait,
    store_waits,
)
from daemon.server.words import span
from runner.v1 import job_service_pb2 as pb

MAX_HOLDERS = 20
"""Jobs that hold the slots which a job waits for and are named."""
_MAX_LOOKS = 10
_EVENTS = 1000
_AWAITED = {
    ANY_FAILED: "have ended, if one of them failed",
    ALWAYS: "have ended",
}
"""What a job with a condition waits for."""


class Explainer:
    """One per server."""

    def __init__(  # noqa: PLR0913 - the parts of one server, joined once
        self,
        *,
        store: JobStore,
        logs: LogFiles,
        log_reader: LogReader,
        dispatcher: Dispatcher,
        inspections: Inspections,
        clock: Clock,
    ) -> None:
        self._store = store
        self._logs = logs
        self._log_reader = log_reader
        self._dispatcher = dispatcher
        self._inspections = inspections
        self._clock = clock

    async def explain(self, job_id: str) -> pb.ExplainJobResponse:
        """Say why a job is where it is; takes up to 2 s if its agent-runner does not answer.

        Raises:
            JobNotFoundError: No such job.
        """
        job, attempts = await self._look(job_id)
        response = pb.ExplainJobResponse(
            job=job_to_pb(job, self._log_reader.with_lengths(attempts))
        )
        if job.state.final:
            response.summary = end_sentence(job, job.attempt)
        elif job.state.leased:
            await self._explain_running(response, job, attempts[-1])
        else:
            await self._explain_queued(response, job)
        return response

    async def _look(self, job_id: str) -> tuple[Job, list[Attempt]]:
        """Return a job and attempts that belong together, although they are read one after the other."""
        looks = 0
        while True:
            job = await self._store.get(job_id)
            attempts = await self._store.attempts(job_id)
            looks += 1
            runs = bool(attempts and attempts[-1].state.leased)
            if job.state.leased == runs:
                return job, attempts
            if looks == _MAX_LOOKS:
                raise StoreUnusableError(f"job {job_id} and its attempts do not belong together")

    async def _explain_queued(self, response: pb.ExplainJobResponse, job: Job) -> None:
        waits = await self._store.waits_on(job.id)
        ready_us = self._wall_us(waits.ready_us) if job.backoff_us else waits.ready_us
        limit = job.spec.concurrency.limit if job.spec.concurrency else 1
        found = store_waits(waits, ready_us, limit)
        sessions = [one for one in self._dispatcher.sessions() if one.serves(job.spec.project)]
        found += place_waits(job, sessions)
        if not found:
            fitting = [
                one
                for one in sessions
                if one.stream
                and not one.draining
                and fits(job, one)
                and one.has_place_for(job.spec)
            ]
            slot = slot_wait(fitting, await self._holders(fitting), waits.ahead)
            found += [slot] if slot else []
        response.waits.extend(
            pb.JobWait(kind=wait.kind, text=wait.text, job_ids=wait.job_ids) for wait in found
        )
        first = found[0].text if found else "is about to be given to an agent-runner"
        response.summary = f"waits: {first}" if found else first
        _set_next(response, _next_of_queued(job, found, ready_us))

    async def _explain_running(
        self, response: pb.ExplainJobResponse, job: Job, attempt: Attempt
    ) -> None:
        session = self._session(attempt)
        stream = session.stream if session else None
        running = Running(
            connected=stream is not None,
            expire_us=self._wall_us(attempt.expire_us),
            output_us=self._logs.grown_us(job.id, attempt.number),
            cancel_us=await self._cancel_us(job),
        )
        response.live.CopyFrom(
            pb.LiveAttempt(
                agent=attempt.agent.name,
                connected=running.connected,
                heartbeat_time=wire.time_to_pb(attempt.renew_us),
                lease_expire_time=wire.time_to_pb(running.expire_us),
                output_time=wire.time_to_pb(running.output_us),
                log_bytes=self._logs.length(job.id, attempt.number),
            )
        )
        if stream is None:
            response.live.processes_unknown = "its agent-runner is not connected"
        else:
            answer = await self._inspections.ask(stream, attempt.lease)
            response.live.processes.extend(answer.processes)
            response.live.processes_unknown = answer.unknown
        verb = "is being cancelled" if job.state is JobState.CANCELLING else "runs"
        age = span(self._clock.now_us() - attempt.start_us)
        away = "" if running.connected else ", which is not connected"
        response.summary = f"{verb} on agent-runner {attempt.agent.name}{away} (attempt {attempt.number}, for {age})"
        _set_next(response, next_of_running(job, attempt, running))

    async def _holders(self, sessions: Sequence[AgentSession]) -> list[Holding]:
        ids = [job_id for session in sessions for job_id, _ in session.held][:MAX_HOLDERS]
        found = []
        for job_id in ids:
            try:
                job = await self._store.get(job_id)
            except JobNotFoundError:  # a hello may name what no store knows
                continue
            if CALLER.get().may_see(job.spec.project):
                found.append(Holding(job_id=job_id, name=job.spec.name, start_us=job.start_us))
        return found

    async def _cancel_us(self, job: Job) -> int | None:
        if job.state is not JobState.CANCELLING:
            return None
        events = await self._store.events(0, _EVENTS, (job.id,))
        moments = [event.time_us for event in events if event.state is JobState.CANCELLING]
        return moments[-1] if moments else None

    def _session(self, attempt: Attempt) -> AgentSession | None:
        for session in self._dispatcher.sessions():
            if session.agent == attempt.agent:
                return session
        return None

    def _wall_us(self, steady_us: int | None) -> int:
        return (steady_us or 0) + self._clock.now_us() - self._clock.steady_us()


def _next_of_queued(job: Job, waits: Sequence[Wait], ready_us: int | None) -> NextStep:
    kinds = {wait.kind for wait in waits}
    if "dependency" in kinds:
        ends = _AWAITED.get(job.spec.condition, "have succeeded")
        return NextStep(text=f"it is queued when the jobs that it depends on {ends}")
    if "time" in kinds:
        text = "it is queued for its next attempt" if job.attempt else "it is queued"
        return NextStep(text=text, time_us=ready_us)
    if "group" in kinds:
        return NextStep(text="it may start when a job of its group ends")
    if "engine" in kinds:
        return NextStep(text="it starts when the container engine answers again")
    if kinds & {"label", "agent"}:
        return NextStep(text="it starts when an agent-runner connects that can take it")
    return NextStep(text="it starts when a slot is free and it is the first in the queue")


def _set_next(response: pb.ExplainJobResponse, step: NextStep) -> None:
    response.next_step = step.text
    if step.time_us is not None:
        time = wire.time_to_pb(step.time_us)
        assert time is not None  # noqa: S101 - it is not for a moment
        response.next_step_time.CopyFrom(time)
