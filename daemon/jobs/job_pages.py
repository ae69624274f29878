"""Pages of jobs out of the database, newest first, each by a few ranges of an index however many jobs there are.

Only a page with a time bound may read every job: submits are not in the order of their times where the wall clock was
set back, and an index of times would cost every submit. It is read in blocks, between which others have their turn.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice

from daemon.jobs import statements
from daemon.jobs.labels import holds
from daemon.jobs.models import JobPage
from daemon.jobs.page_tokens import check_page_size, decode_page_token, encode_page_token
from daemon.jobs.rows import Row, job_from_row
from daemon.jobs.states import JobState

Read = Callable[[str, Row], list[Row]]

BLOCK = 5000
"""Submits that are looked through in one go for those since a time: about a millisecond."""


async def read_page(  # noqa: PLR0913 - the filters of the port
    read: Read,
    states: Collection[JobState],
    page_size: int,
    page_token: str,
    *,
    labels: Mapping[str, str],
    since_us: int,
) -> JobPage:
    """Return a page of jobs; arguments and errors are those of ``JobStore.list``."""
    check_page_size(page_size)
    before = decode_page_token(page_token)
    label_keys = [*_label_keys(read, labels)] if labels else None
    rows: list[Row] = []
    for bounds in _blocks(read, since_us, before):
        ranges = _ranges(read, states, label_keys, (*bounds, page_size + 1))
        merged = heapq.merge(*ranges, key=_position, reverse=True)
        rows += islice(merged, page_size + 1 - len(rows))
        if len(rows) > page_size:
            break
        if since_us:
            await asyncio.sleep(0)
    page = rows[:page_size]
    more = len(rows) > page_size
    return JobPage(
        jobs=tuple(job_from_row(row[1:]) for row in page),
        next_page_token=encode_page_token(_position(page[-1])) if more else "",
    )


def _label_keys(read: Read, labels: Mapping[str, str]) -> Iterator[str]:
    """Yield each set of labels in the database that holds all of the given ones."""
    key = ""
    while found := read(statements.NEXT_LABELS, (key,)):
        ((key,),) = found
        if holds(key, labels):
            yield key


def _blocks(read: Read, since_us: int, before: int) -> Iterator[tuple[int, int, int]]:
    """Yield the parts of the order of submits to look through, the newest first, each with the time bound in its middle."""
    if not since_us:
        yield 0, 0, before
        return
    ((low, high),) = read(statements.SEQ_BOUNDS, ())
    if low is None:
        return
    before = min(before, high + 1)
    while before > low:
        first = max(before - BLOCK, low)
        yield first, since_us, before
        before = first


def _ranges(
    read: Read, states: Collection[JobState], label_keys: list[str] | None, bounds: Row
) -> list[list[Row]]:
    """Return the jobs of one part, from each range of an index that holds some."""
    if label_keys is not None:
        return [
            read(statements.LIST_JOBS_WITH_LABELS, (key, state, *bounds))
            for key in label_keys
            for state in states or JobState
        ]
    if states:
        # One range of the index for each state: filtering by scanning would read the whole table.
        return [read(statements.LIST_JOBS_IN_STATE, (state, *bounds)) for state in set(states)]
    return [read(statements.LIST_JOBS, bounds)]


def _position(row: Row) -> int:
    return int(row[0])
