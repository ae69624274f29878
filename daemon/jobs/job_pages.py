"""Pages of jobs out of the database, newest first, each by a few ranges of an index however many jobs there are.

Only a page with a time bound, or of the default project alone, may read every job: submits are not in the order of their
times where the wall clock was set back, and an index of times or of that project would cost every submit. It is read in
blocks, between which others have their turn.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from agent_runner.project_names import DEFAULT_PROJECT
from daemon.jobs import statements
from daemon.jobs.labels import holds
from daemon.jobs.models import JobPage
from daemon.jobs.page_tokens import check_page_size, decode_page_token, encode_page_token
from daemon.jobs.queue_keys import key_range
from daemon.jobs.rows import Row, job_from_row
from daemon.jobs.states import JobState

Read = Callable[[str, Row], list[Row]]

BLOCK = 5000
"""Submits that are looked through in one go for those since a time: about a millisecond."""
_BEYOND_ALL = "\x7f"
"""Sorts after every text of a queue."""


class Kept(NamedTuple):
    """The filters of ``JobStore.list``."""

    states: Collection[JobState]
    labels: Mapping[str, str]
    projects: Collection[str] | None
    since_us: int

    @property
    def has_default(self) -> bool:
        """Tell whether it keeps jobs of the default project whatever their labels: those without any are in no index by labels."""
        return not self.labels and self.projects is not None and DEFAULT_PROJECT in self.projects


async def read_page(read: Read, kept: Kept, page_size: int, page_token: str) -> JobPage:
    """Return a page of jobs; arguments and errors are those of ``JobStore.list``."""
    check_page_size(page_size)
    before = decode_page_token(page_token)
    keys = [*_keys(read, kept)] if kept.labels or kept.projects is not None else None
    in_blocks = kept.since_us > 0 or kept.has_default
    rows: list[Row] = []
    for bounds in _blocks(read, kept.since_us, before, in_blocks=in_blocks):
        ranges = _ranges(read, kept, keys, (*bounds, page_size + 1))
        merged = heapq.merge(*ranges, key=_position, reverse=True)
        rows += islice(merged, page_size + 1 - len(rows))
        if len(rows) > page_size:
            break
        if in_blocks:
            await asyncio.sleep(0)
    page = rows[:page_size]
    more = len(rows) > page_size
    return JobPage(
        jobs=tuple(job_from_row(row[1:]) for row in page),
        next_page_token=encode_page_token(_position(page[-1])) if more else "",
    )


def _keys(read: Read, kept: Kept) -> Iterator[str]:
    """Yield each text of the index by labels that stands for jobs to be kept."""
    ranges = [("", _BEYOND_ALL)]
    if kept.projects is not None:
        found = kept.projects if kept.labels else {*kept.projects} - {DEFAULT_PROJECT}
        ranges = [key_range(project) for project in sorted(found)]
    for key, end in ranges:
        while found_keys := read(statements.NEXT_LABELS, (key, end)):
            ((key,),) = found_keys  # noqa: PLW2901 - the next jump begins at it
            if holds(key, kept.labels):
                yield key


def _blocks(
    read: Read, since_us: int, before: int, *, in_blocks: bool
) -> Iterator[tuple[int, int, int]]:
    """Yield the parts of the order of submits to look through, the newest first, each with the time bound in its middle."""
    if not in_blocks:
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


def _ranges(read: Read, kept: Kept, keys: list[str] | None, bounds: Row) -> list[list[Row]]:
    """Return the jobs of one part, from each range of an index that holds some."""
    ranges = []
    if keys is not None:
        ranges = [
            read(statements.LIST_JOBS_WITH_LABELS, (key, state, *bounds))
            for key in keys
            for state in kept.states or JobState
        ]
    if kept.has_default:
        of_all, in_state = statements.LIST_JOBS_OF_DEFAULT, statements.LIST_JOBS_OF_DEFAULT_IN_STATE
    elif keys is None:
        of_all, in_state = statements.LIST_JOBS, statements.LIST_JOBS_IN_STATE
    else:
        return ranges
    if kept.states:
        # One range of the index for each state: filtering by scanning would read the whole table.
        ranges += [read(in_state, (state, *bounds)) for state in set(kept.states)]
    else:
        ranges.append(read(of_all, bounds))
    return ranges


def _position(row: Row) -> int:
    return int(row[0])
