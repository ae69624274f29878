"""Pages of jobs out of the database, newest first, each by a few ranges of an index however many jobs there are."""

from __future__ import annotations

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


def read_page(  # noqa: PLR0913 - the filters of the port
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
    first = _first_since(read, since_us) if since_us else 0
    bounds = (first, since_us, before, page_size + 1)
    if labels:
        ranges = [
            read(statements.LIST_JOBS_WITH_LABELS, (key, state, *bounds))
            for key in _label_keys(read, labels)
            for state in states or JobState
        ]
    elif states:
        # One range of the index for each state: filtering by scanning would read the whole table.
        ranges = [read(statements.LIST_JOBS_IN_STATE, (state, *bounds)) for state in set(states)]
    else:
        ranges = [read(statements.LIST_JOBS, bounds)]
    rows = [*islice(heapq.merge(*ranges, key=_position, reverse=True), page_size + 1)]
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


def _first_since(read: Read, since_us: int) -> int:
    """Return where in the order of submits a time begins, by bisection: an index would cost every submit."""
    ((low, high),) = read(statements.SEQ_BOUNDS, ())
    if low is None:
        return 0
    while low <= high:
        middle = (low + high) // 2
        ((create_us,),) = read(statements.CREATED_FROM, (middle,))
        if create_us < since_us:
            low = middle + 1
        else:
            high = middle - 1
    return int(low)


def _position(row: Row) -> int:
    return int(row[0])
