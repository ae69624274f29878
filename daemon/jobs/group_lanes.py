"""Concurrency groups in the database: which jobs of a group may be claimed now.

The jobs of a group that wait form lanes: those of one lane have equal limits and labels, so of them only the best can
be next. It alone is *open*, that is among the jobs that a claim looks at, and only while fewer jobs of the group run than
its limit. So a claim never meets a job that its group holds back, however many there are, and ``settle``, which
keeps it so, looks at one job of each lane. It is called for each change of a job that has a group, and of no other.
"""

from __future__ import annotations

import sqlite3

from daemon.jobs import statements
from daemon.jobs.rows import GROUP_HOLD, NO_HOLD, lane_limit
from daemon.jobs.writer_reads import read


def settle(connection: sqlite3.Connection, group: str) -> bool:
    """Open the jobs of a group that may be claimed and close the others; tell whether one was opened."""
    ((holding,),) = read(connection, statements.COUNT_HOLDING, (group,))
    was_open = {seq for (seq,) in read(connection, statements.SELECT_OPEN, (group,))}
    now_open = set()
    lane = ""
    while found := read(connection, statements.NEXT_LANE, (group, lane)):
        ((lane, seq),) = found
        if holding < lane_limit(lane):
            now_open.add(seq)
    changes = [(GROUP_HOLD, seq) for seq in was_open - now_open]
    changes += [(NO_HOLD, seq) for seq in now_open - was_open]
    connection.executemany(statements.UPDATE_HOLD, changes)
    return bool(now_open - was_open)
