"""Any sequence of calls has the same answers from every backend; the in-memory one is the model."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent_runner.errors import InvalidJobSpecError
from agent_runner.job_spec import ConcurrencySpec, JobSpec, RetryPolicy
from agent_runner.outcome import EndReason, LogSummary, Outcome
from daemon.clock import FixedClock
from daemon.errors import DaemonError
from daemon.jobs.models import (
    AgentIdentity,
    AgentOffer,
    Excess,
    JobPage,
    LeaseRef,
    NewJob,
    QueueChange,
)
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from tests.contract.job_store_backends import BACKENDS

LABELS = st.dictionaries(st.sampled_from("ab"), st.sampled_from("12"), max_size=2)
AGENTS = st.builds(
    AgentIdentity, name=st.sampled_from(["x", "y"]), incarnation=st.sampled_from(["1", "2"])
)
GROUPS = st.none() | st.builds(
    ConcurrencySpec, group=st.sampled_from("gh"), limit=st.integers(1, 2)
)
RETRIES = st.none() | st.builds(
    RetryPolicy,
    max=st.integers(0, 2),
    backoff_s=st.sampled_from([0.0, 2.0]),
    exit_codes=st.sampled_from([(), (1,), (2,)]),
)
SPECS = st.fixed_dictionaries(
    {
        "labels": LABELS,
        "priority": st.integers(-1, 1),
        "concurrency": GROUPS,
        "retries": RETRIES,
        "max_attempts": st.sampled_from([0, 0, 2]),
        "delay_s": st.sampled_from([None, None, 0, 3]),
        "depends_on": st.lists(st.integers(0, 30), max_size=2, unique=True) | st.just([]),
    }
)
SUBMITS = st.tuples(
    SPECS,
    st.none() | st.sampled_from("rst"),
    st.sampled_from(["one", "one", "two"]),
    st.sampled_from(["", "job0"]),
)
OUTCOMES = st.builds(
    Outcome,
    end_reason=st.sampled_from([EndReason.EXITED, EndReason.CANCELLED, EndReason.LOST]),
    exit_code=st.sampled_from([None, 0, 1]),
    message=st.text(max_size=3),
    log=st.builds(LogSummary, length=st.integers(0, 9), sha256=st.sampled_from(["", "a"])),
    interrupted=st.booleans(),
)
INDEXES = st.integers(0, 30)
FIRST, SECOND = BACKENDS


class StoresAgree(RuleBasedStateMachine):
    """Calls both backends with the same arguments. Lease tokens are random, so leases are kept in pairs."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp())
        self._loop = asyncio.new_event_loop()
        self._clock = FixedClock()
        self._stores = [make(self._folder, self._clock) for make in BACKENDS.values()]
        self._leases: list[tuple[LeaseRef, ...]] = []
        self._jobs = 0
        self._changes: list[list[QueueChange]] = [[] for _ in self._stores]
        for which in range(len(self._stores)):
            self.start(which)

    def start(self, which: int) -> None:
        self._loop.run_until_complete(self._stores[which].open())
        self._stores[which].listen(self._changes[which].append)

    def teardown(self) -> None:
        for store in self._stores:
            self._loop.run_until_complete(store.close())
        self._loop.close()
        shutil.rmtree(self._folder)

    def both(self, call: Callable[[JobStore, int], Awaitable[object]]) -> list[object]:
        async def answer(which: int) -> object:
            try:
                return await call(self._stores[which], which)
            except (DaemonError, InvalidJobSpecError) as exc:
                return (type(exc), str(exc))

        return [self._loop.run_until_complete(answer(which)) for which in range(len(self._stores))]

    def agree(self, call: Callable[[JobStore, int], Awaitable[object]]) -> object:
        first, second = self.both(call)
        assert first == second
        return first

    def lease(self, index: int) -> tuple[LeaseRef, ...]:
        if not self._leases:
            return (LeaseRef(job_id="job0", attempt=1, lease_token="none"),) * len(self._stores)
        return self._leases[index % len(self._leases)]

    @rule(submits=st.lists(SUBMITS, max_size=4))
    def submit(self, submits: Sequence[tuple[dict[str, Any], str | None, str, str]]) -> None:
        jobs = []
        for fields, request_id, payload, retry_of in submits:
            # Mostly of jobs that are there, some not: the submit is refused.
            others = [number % (self._jobs + 1) for number in fields["depends_on"]]
            delay_s = fields["delay_s"]
            spec = JobSpec(
                argv=("x",),
                labels=fields["labels"],
                priority=fields["priority"],
                concurrency=fields["concurrency"],
                retries=fields["retries"],
                max_attempts=fields["max_attempts"],
                not_before_us=None
                if delay_s is None
                else self._clock.now_us() + delay_s * 1_000_000,
                depends_on=tuple(dict.fromkeys(f"job{number}" for number in others)),
            )
            jobs.append(
                NewJob(
                    id=f"job{self._jobs}",
                    spec=spec,
                    request_id=request_id,
                    payload_sha256=payload,
                    retry_of=retry_of,
                )
            )
            self._jobs += 1
        self.agree(lambda store, _: store.submit(jobs))

    @rule(agent=AGENTS, labels=LABELS, limit=st.integers(0, 3), lease_s=st.integers(1, 9))
    def claim(self, agent: AgentIdentity, labels: dict[str, str], limit: int, lease_s: int) -> None:
        offer = AgentOffer(agent=agent, labels=labels)
        first, second = (
            [*claims]
            for claims in self.both(lambda store, _: store.claim(offer, limit, lease_s))
            if isinstance(claims, list)
        )
        assert [(c.lease.job_id, c.lease.attempt, c.spec) for c in first] == [
            (c.lease.job_id, c.lease.attempt, c.spec) for c in second
        ]
        self._leases += [(a.lease, b.lease) for a, b in zip(first, second, strict=True)]

    @rule(agent=AGENTS, indexes=st.lists(INDEXES, max_size=3), lease_s=st.integers(1, 9))
    def renew(self, agent: AgentIdentity, indexes: list[int], lease_s: int) -> None:
        async def call(store: JobStore, which: int) -> object:
            leases = [self.lease(index)[which] for index in indexes]
            renewal = await store.renew(agent, leases, lease_s)
            return [
                [(lease.job_id, lease.attempt) for lease in part]
                for part in (renewal.lost, renewal.cancelling)
            ]

        self.agree(call)

    @rule(index=INDEXES, outcome=OUTCOMES, again=st.booleans())
    def finish(self, index: int, outcome: Outcome, again: bool) -> None:
        first = self.agree(lambda store, which: store.finish(self.lease(index)[which], outcome))
        if again:
            second = self.agree(
                lambda store, which: store.finish(self.lease(index)[which], outcome)
            )
            assert isinstance(first, tuple) or first == second or outcome.end_reason == "LOST"

    @rule(index=INDEXES)
    def check(self, index: int) -> None:
        self.agree(lambda store, which: store.check_lease(self.lease(index)[which]))

    @rule(agent=AGENTS)
    def held(self, agent: AgentIdentity) -> None:
        async def call(store: JobStore, _: int) -> object:
            return [(lease.job_id, lease.attempt) for lease in await store.held(agent)]

        self.agree(call)

    @rule(indexes=st.lists(INDEXES, max_size=3), written=st.lists(INDEXES, max_size=1))
    def give_back(self, indexes: list[int], written: list[int]) -> None:
        async def call(store: JobStore, which: int) -> object:
            leases, begun = (
                [self.lease(index)[which] for index in some] for some in (indexes, written)
            )
            return await store.give_back(leases, begun)

        self.agree(call)

    @rule(index=INDEXES, number=st.integers(0, 3), length=st.integers(0, 9))
    def describe_log(self, index: int, number: int, length: int) -> None:
        self.agree(lambda store, _: store.describe_log(f"job{index}", number, length, "d"))

    @rule(request_ids=st.lists(st.sampled_from("rstu"), max_size=3))
    def known_requests(self, request_ids: list[str]) -> None:
        self.agree(lambda store, _: store.known_requests(request_ids))

    @rule(request_id=st.sampled_from("rstu"), payload=st.sampled_from(["one", "two"]))
    def requested(self, request_id: str, payload: str) -> None:
        self.agree(lambda store, _: store.requested(request_id, payload))

    @rule(index=INDEXES)
    def cancel(self, index: int) -> None:
        self.agree(lambda store, _: store.cancel(f"job{index}"))

    @rule(ends=st.booleans())
    def abandon(self, ends: bool) -> None:
        """Remove a job that depended on one which ends afterwards, now or later."""
        first, dependent, last = ids = [f"job{self._jobs + offset}" for offset in range(3)]
        self._jobs += len(ids)
        specs = [JobSpec(argv=("x",), depends_on=others) for others in ((), (first,), ())]
        jobs = [
            NewJob(id=job_id, spec=spec, request_id=None, payload_sha256="")
            for job_id, spec in zip(ids, specs, strict=True)
        ]
        self.agree(lambda store, _: store.submit(jobs))
        self.agree(lambda store, _: store.cancel(dependent))
        self.agree(lambda store, _: store.cancel(last))
        self.agree(lambda store, _: store.remove_ended(Excess(jobs=99), (), 99))
        if ends:
            self.agree(lambda store, _: store.cancel(first))

    @rule(agent=AGENTS)
    def end_predecessors(self, agent: AgentIdentity) -> None:
        self.agree(lambda store, _: store.end_predecessors(agent))

    @rule(seconds=st.integers(0, 9))
    def expire(self, seconds: int) -> None:
        self._clock.advance(seconds)
        self.agree(lambda store, _: store.expire_leases())

    @rule(limit=st.integers(1, 3), seconds=st.integers(0, 3))
    def wake_due(self, limit: int, seconds: int) -> None:
        self._clock.advance(seconds)
        self.agree(lambda store, _: store.wake_due(limit))

    @rule(
        ago_s=st.none() | st.integers(0, 5),
        jobs=st.integers(0, 3),
        log_bytes=st.integers(0, 9),
        spared=st.sets(INDEXES, max_size=2),
        limit=st.integers(0, 4),
    )
    def remove_ended(
        self, ago_s: int | None, jobs: int, log_bytes: int, spared: set[int], limit: int
    ) -> None:
        excess = Excess(
            before_us=0 if ago_s is None else self._clock.now_us() - ago_s * 1_000_000,
            jobs=jobs,
            log_bytes=log_bytes,
        )
        ids = [f"job{number}" for number in spared]
        self.agree(lambda store, _: store.remove_ended(excess, ids, limit))

    @rule(forget=st.booleans())
    def removed_logs(self, forget: bool) -> None:
        logs = self.agree(lambda store, _: store.removed_logs(3))
        assert isinstance(logs, list)
        if forget:
            self.agree(lambda store, _: store.forget_removed_logs([log.job_id for log in logs]))

    @rule()
    def cap_backoffs(self) -> None:
        self.agree(lambda store, _: store.cap_backoffs())

    @rule(index=INDEXES)
    def waits_on(self, index: int) -> None:
        self.agree(lambda store, _: store.waits_on(f"job{index}"))

    @rule(index=INDEXES)
    def newest_retry(self, index: int) -> None:
        self.agree(lambda store, _: store.newest_retry(f"job{index}"))

    @rule(lease_s=st.integers(1, 9))
    def extend(self, lease_s: int) -> None:
        self.agree(lambda store, _: store.extend_all_leases(lease_s))

    @rule(
        states=st.sets(st.sampled_from(JobState), max_size=3),
        size=st.integers(1, 5),
        labels=LABELS,
        ago_s=st.none() | st.integers(0, 9),
    )
    def page(
        self, states: set[JobState], size: int, labels: dict[str, str], ago_s: int | None
    ) -> None:
        since_us = 0 if ago_s is None else self._clock.now_us() - ago_s * 1_000_000
        token = ""
        while True:
            call = partial(_page, states, size, token, labels, since_us)
            page = self.agree(call)
            assert isinstance(page, JobPage)
            token = page.next_page_token
            if not token:
                return

    @rule(after=st.integers(-1, 40), limit=st.integers(0, 5), jobs=st.sets(INDEXES, max_size=3))
    def some_events(self, after: int, limit: int, jobs: set[int]) -> None:
        ids = [f"job{number}" for number in jobs]
        self.agree(lambda store, _: store.events(after, limit, ids))

    @rule()
    def reopen(self) -> None:
        """Restart the durable one in the middle."""
        store = self._stores[1]
        self._loop.run_until_complete(store.close())
        self._stores[1] = BACKENDS[SECOND](self._folder, self._clock)
        self.start(1)

    @invariant()
    def tell_the_same(self) -> None:
        self.agree(lambda store, _: store.events(0, 10_000, ()))
        self.agree(lambda store, _: store.last_event_id())
        self.agree(lambda store, _: store.list((), 10_000, ""))
        self.agree(lambda store, _: _counts(store))
        self.agree(lambda store, _: store.log_bytes())
        self.agree(lambda store, _: store.last_removed_event_id())
        moved, moved_too = ([c.jobs for c in changes if c.jobs] for changes in self._changes)
        assert moved == moved_too
        self.agree(lambda store, _: _attempts(store, {pair[0].job_id for pair in self._leases}))


async def _page(  # noqa: PLR0917 - the arguments of the port
    states: set[JobState],
    size: int,
    token: str,
    labels: dict[str, str],
    since_us: int,
    store: JobStore,
    _: int,
) -> object:
    return await store.list(states, size, token, labels=labels, since_us=since_us)


async def _counts(store: JobStore) -> object:
    return [await store.count(state) for state in JobState]


async def _attempts(store: JobStore, job_ids: set[str]) -> object:
    return [
        [attempt._replace(lease_token="") for attempt in await store.attempts(job_id)]
        for job_id in sorted(job_ids)
    ]


# Shrinking a failure to its shortest steps takes longer than finding it.
TestStoresAgree = pytest.mark.timeout(300)(StoresAgree.TestCase)
TestStoresAgree.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
