"""``runner jobs watch``: a live table on a terminal; one line, or one JSON object, per event elsewhere."""

from __future__ import annotations

import contextlib
import enum
import itertools
import json
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from daemon.cli.output import printable, seconds_text
from daemon.cli.screen import Screen, can_be_screen, padded
from daemon.cli.server_choice import connect
from daemon.cli.verdict import describe
from daemon.clock import SystemClock
from daemon.errors import Interrupted

if TYPE_CHECKING:
    from daemon.job_client.client import JobClient
    from daemon.job_client.job_dicts import JobDict

FRAME_S = 0.25
"""Between two looks at the server, however much happens."""
TICK_S = 1.0
"""Between two frames when nothing happens: the ages of jobs go on."""
FIXED_COLUMNS = 26 + 10 + 9 + 4 * 2
"""Of the table without name and detail."""
GROUPS = (("RUNNING", "CANCELLING"), ("PENDING", "BLOCKED"), ("SUCCEEDED", "FAILED", "CANCELLED"))
"""In the order of the table."""


class _News(enum.IntEnum):
    """What the table is told, the weightier the higher."""

    RESIZED = 1
    CHANGED = 2
    ENDED = 3


@click.command(epilog="Examples: runner jobs watch; runner jobs watch JOB --json")
@click.argument("job_ids", metavar="[JOB]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per event, on a line.")
@click.pass_context
def watch(ctx: click.Context, job_ids: tuple[str, ...], as_json: bool) -> None:
    """Watch all jobs until Ctrl-C, or some until they have ended."""
    with connect(ctx) as client:
        try:
            if as_json or not can_be_screen():
                _print_events(client, job_ids, as_json=as_json)
            else:
                _LiveTable(client, job_ids).run()
        except KeyboardInterrupt:
            raise Interrupted("stopped watching; the jobs go on") from None


def _print_events(client: JobClient, job_ids: Sequence[str], *, as_json: bool) -> None:
    from daemon.job_client.job_dicts import event_dict  # noqa: PLC0415 - after grpc

    for event in client.watch(job_ids):
        document = event_dict(event)
        sys.stdout.write((json.dumps(document) if as_json else event_line(document)) + "\n")
        sys.stdout.flush()


def event_line(event: JobDict) -> str:
    """Return a change of a job as a line for a person or a log."""
    end = ""
    if event["end_reason"]:
        end = f"  {describe(event['end_reason'], event['exit_code'], '')}"
    attempt = f"  attempt {event['attempt']}" if event["attempt"] > 1 else ""
    return printable(f"{event['event_time']}  {event['job_id']}  {event['state']}{attempt}{end}")


class _LiveTable:
    """The table and what keeps it fresh: a thread hears of changes, the main thread looks at the jobs and draws."""

    def __init__(self, client: JobClient, job_ids: Sequence[str]) -> None:
        self._client = client
        self._job_ids = job_ids
        self._clock = SystemClock()
        self._news: queue.SimpleQueue[_News | Exception] = queue.SimpleQueue()
        """Of the thread and of signal handlers, which may put into nothing else."""
        self._groups: list[list[JobDict]] = [[] for _ in GROUPS]
        self._limit = 0
        self._trouble = ""

    def run(self) -> None:
        """Draw until Ctrl-C, or until the named jobs have ended.

        Raises:
            DaemonError: The server cannot be reached any more, or does not know a job.
        """
        threading.Thread(target=self._listen, daemon=True).start()
        with Screen(partial(self._news.put, _News.RESIZED)) as screen:
            self._look(screen.size.lines)
            while True:
                screen.show(list(self._page(screen.size.columns)))
                news = self._wait()
                if isinstance(news, Exception):
                    raise news
                if news is not None and news is not _News.RESIZED:
                    self._look(screen.size.lines)
                if news is _News.ENDED:
                    break
        for line in self._page(10_000):
            print(line.rstrip())

    def _listen(self) -> None:
        try:
            for _ in self._client.watch(self._job_ids):
                self._news.put(_News.CHANGED)
            self._news.put(_News.ENDED)
        except Exception as error:  # noqa: BLE001 - the main thread raises it
            self._news.put(error)

    def _wait(self) -> _News | Exception | None:
        """Return the weightiest news since the last frame; None if only time has passed."""
        try:
            heard = [self._news.get(timeout=TICK_S)]
        except queue.Empty:
            return _News.CHANGED if self._trouble else None
        if heard[0] is _News.CHANGED:
            time.sleep(FRAME_S)
        with contextlib.suppress(queue.Empty):
            while True:
                heard.append(self._news.get_nowait())
        return next((one for one in heard if isinstance(one, Exception)), None) or max(
            one for one in heard if not isinstance(one, Exception)
        )

    def _look(self, lines: int) -> None:
        """Ask the server for as many jobs as have room."""
        from daemon.job_client.calls import UnavailableError  # noqa: PLC0415 - after grpc

        self._limit = max(1, lines)
        try:
            if self._job_ids:
                jobs = self._client.get_all(self._job_ids)
                self._groups = [[job for job in jobs if job["state"] in group] for group in GROUPS]
            else:
                self._groups = [self._client.newest(group, self._limit) for group in GROUPS]
            self._trouble = ""
        except UnavailableError as error:
            self._trouble = str(error)

    def _page(self, columns: int) -> Iterator[str]:
        """Yield the lines of the table."""
        now_s = self._clock.now_us() / 1e6
        counts = ", ".join(
            f"{len(group)}{'+' if len(group) == self._limit else ''} {word}"
            for group, word in zip(self._groups, ("running", "waiting", "ended"), strict=True)
        )
        head = f"{datetime.fromtimestamp(now_s, UTC).astimezone():%H:%M:%S}  jobs: {counts}"
        yield printable(f"{head}  {self._trouble}" if self._trouble else head)
        names = max(10, min(40, (columns - FIXED_COLUMNS) // 2))
        yield f"{'ID':26}  {'STATE':10}  {'TIME':>8}  {padded('NAME', names)}  DETAIL"
        for job in itertools.chain(*self._groups):
            age = seconds_text(_age_s(job, now_s))
            name = padded(printable(job["name"]), names)
            yield f"{job['id']:26}  {job['state']:10}  {age:>8}  {name}  {_detail(job)}"


def _age_s(job: JobDict, now_s: float) -> float:
    """Return how long it waits, runs or ran, whichever it does."""
    waits = job["state"] in GROUPS[1]
    start = _seconds(job["create_time"] if waits or not job["start_time"] else job["start_time"])
    end = _seconds(job["end_time"]) if job["end_time"] else now_s
    return max(0.0, end - start)


def _detail(job: JobDict) -> str:
    if job["end_reason"]:
        return printable(describe(job["end_reason"], job["exit_code"], job["message"]))
    return f"attempt {job['attempt']}" if job["attempt"] > 1 else ""


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
