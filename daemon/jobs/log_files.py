"""The logs of attempts: one file each, written by byte offset so that sending a chunk twice changes nothing.

The size of the file is the acknowledged length. Nothing is synced: a log survives every death of a process, and what a
death of the host takes away the agent-runner sends again, because the file then ends earlier than it remembers.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.errors import (
    LogNotWrittenError,
    StoreUnusableError,
    UsageError,
)
from daemon.jobs.open_log import CLOSED, OpenLog, check_gap

LogKey = tuple[str, int]
"""Job id and attempt."""

MAX_OPEN = 128
"""Files kept open between calls."""

EMPTY_SHA256 = hashlib.sha256().hexdigest()

_JOB_ID = re.compile(r"[0-9a-z]{1,64}")


class LogFiles:
    """The log files in one folder: ``<root>/<job id>-<attempt>.log``, mode 0600 in a folder of 0700.

    Calls may come from any thread and block for as long as the disk does, but for none of the others: only appends to
    the same log run one after the other. An attempt without a file has an empty log.

    The log of an attempt that has ended is sealed: nothing is added any more, whoever checked the lease before. A seal
    is remembered for as long as somebody holds the log. So a writer first holds it and then checks its lease; who seals
    has first made sure that no lease will be found. Whoever reads the end of a log seals it before.
    """

    def __init__(self, root: Path, max_open: int = MAX_OPEN) -> None:
        self._root = root
        self._folder = str(root)
        self._max_open = max_open
        # Guards the tables and what is counted in them, and is never held while the disk works.
        self._lock = threading.Lock()
        self._logs: dict[LogKey, OpenLog] = {}
        self._open: OrderedDict[LogKey, OpenLog] = OrderedDict()

    def length(self, job_id: str, attempt: int) -> int:
        """Return how many bytes are stored.

        Raises:
            UsageError: The id or the number could not name an attempt.
        """
        path = self._path(job_id, attempt)
        log = self._logs.get((job_id, attempt))
        if log is not None and log.measured:
            return log.length
        try:
            return os.stat(path).st_size  # noqa: PTH116 - several times per job
        except FileNotFoundError:
            if log is not None:
                log.measured = True  # nobody but this object makes the file
            return 0

    def acknowledged(self, job_id: str, attempt: int) -> int:
        """Return from where bytes are wanted: the length, or less while the log is written over.

        Raises:
            UsageError: The id or the number could not name an attempt.
        """
        log = self._logs.get((job_id, attempt))
        if log is not None and log.measured:
            return log.acknowledged
        return self.length(job_id, attempt)

    def append(self, job_id: str, attempt: int, offset: int, data: bytes) -> int:
        """Store bytes that begin at ``offset`` of the log and return how much of it is acknowledged then.

        What is stored already is skipped, so repeating a call is harmless.

        Raises:
            LeaseLostError: There is something to add, but the log is sealed.
            LogGapError: What is acknowledged ends before ``offset``.
            LogNotWrittenError: The disk did not take them; the log is as before.
            UsageError: The id or the number could not name an attempt, or ``offset`` is negative.
        """
        if offset < 0:
            raise UsageError("the log offset must not be negative")
        try:
            with self._opened(job_id, attempt, create=bool(data)) as log:
                if log is not None:
                    return log.append(offset, memoryview(data))
                check_gap(0, offset)
                return 0
        except OSError as exc:
            raise LogNotWrittenError(
                f"the log of attempt {attempt} of job {job_id} cannot be stored "
                f"({exc.strerror}): make room below {self._root}"
            ) from exc

    def read(self, job_id: str, attempt: int, offset: int, limit: int) -> bytes:
        """Return up to ``limit`` bytes from ``offset``; fewer only at the end of the log.

        Raises:
            StoreUnusableError: The disk cannot give them back.
            UsageError: The id or the number could not name an attempt, or ``offset`` is negative.
        """
        if offset < 0:
            raise UsageError("the log offset must not be negative")
        with _readable(job_id, attempt), self._opened(job_id, attempt) as log:
            return log.read(offset, limit) if log is not None else b""

    def grown_us(self, job_id: str, attempt: int) -> int | None:
        """Return when bytes were last added, in microseconds since the epoch; None if there are none.

        Raises:
            UsageError: The id or the number could not name an attempt.
        """
        try:
            status = os.stat(self._path(job_id, attempt))  # noqa: PTH116 - the path is a text
        except FileNotFoundError:
            return None
        return status.st_mtime_ns // 1000 if status.st_size else None

    def known_sha256(self, job_id: str, attempt: int) -> str | None:
        """Return the hash of the stored log if it is known without reading the file, so that no thread is needed."""
        log = self._logs.get((job_id, attempt))
        if log is not None and log.measured:
            return log.known_sha256()
        return None if self.length(job_id, attempt) else EMPTY_SHA256

    def sha256(self, job_id: str, attempt: int) -> str:
        """Return the SHA-256 of the stored log in hexadecimal.

        Instant for a log that was written through this object and kept open; else it reads the file, and appends go on
        meanwhile.

        Raises:
            StoreUnusableError: The disk cannot give it back.
            UsageError: The id or the number could not name an attempt.
        """
        with _readable(job_id, attempt), self._opened(job_id, attempt) as log:
            return log.sha256() if log is not None else EMPTY_SHA256

    @contextmanager
    def held(self, job_id: str, attempt: int) -> Iterator[None]:
        """Remember a seal for as long as the block lasts. Costs no open file.

        Raises:
            UsageError: The id or the number could not name an attempt.
        """
        self._path(job_id, attempt)
        key = (job_id, attempt)
        with self._lock:
            log = self._logs.setdefault(key, OpenLog())
            log.holders += 1
        try:
            yield
        finally:
            with self._lock:
                log.holders -= 1
                self._forget(key, log)

    def seal(self, job_id: str, attempt: int) -> None:
        """Let nothing be added to the log of an attempt that has ended; waits for what is being written. Idempotent."""
        log = self._logs.get((job_id, attempt))
        if log is not None:
            log.seal()

    def try_seal(self, job_id: str, attempt: int) -> bool:
        """Seal without waiting; False if something is being written, and only ``seal`` says when that is done."""
        log = self._logs.get((job_id, attempt))
        return log is None or log.try_seal()

    def rewrite(self, job_id: str, attempt: int) -> bool:
        """Have the whole log sent again, because it is not what was sent; takes a seal off.

        Nothing is thrown away: the stored bytes stay until they are written over. Returns False if this was tried
        before, which is remembered until ``close_attempt``.

        Raises:
            StoreUnusableError: The disk cannot give the log back.
            UsageError: The id or the number could not name an attempt.
        """
        with _readable(job_id, attempt), self._opened(job_id, attempt):
            return self._logs[job_id, attempt].rewrite()

    def close_attempt(self, job_id: str, attempt: int) -> None:
        """Close the file of an attempt that has ended. Idempotent.

        Called after the end is durable. A file that another call still uses is closed later, as the oldest one.
        """
        key = (job_id, attempt)
        with self._lock:
            log = self._logs.get(key)
            if log is None:
                return
            log.rewritten = False
            fd = CLOSED
            if log.fd == CLOSED:
                self._forget(key, log)
            elif not log.users:
                fd = self._take(key, log)
        if fd != CLOSED:
            os.close(fd)

    def remove(self, job_id: str, attempts: int) -> None:
        """Delete the logs of the first ``attempts`` attempts of a job that is gone. Idempotent.

        Raises:
            StoreUnusableError: The disk does not let them be deleted.
            UsageError: The id could not name a job.
        """
        for attempt in range(1, attempts + 1):
            path = self._path(job_id, attempt)
            self.close_attempt(job_id, attempt)
            try:
                os.unlink(path)  # noqa: PTH108 - the path is a text
            except FileNotFoundError:
                continue
            except OSError as exc:
                raise StoreUnusableError(f"log {path} cannot be deleted: {exc.strerror}") from exc

    def close(self) -> None:
        """Close every file; what a call under way still uses is closed when that ends. Idempotent."""
        self._max_open = 0
        with self._lock:
            idle = self._take_idle()
        for fd in idle:
            os.close(fd)

    @contextmanager
    def _opened(
        self, job_id: str, attempt: int, *, create: bool = False
    ) -> Iterator[OpenLog | None]:
        """Hold the file of an attempt open; ``None`` if it has none and none is to be made."""
        path = self._path(job_id, attempt)
        key = (job_id, attempt)
        with self._lock:
            log = self._logs.setdefault(key, OpenLog())
            log.users += 1
            if log.fd != CLOSED:
                self._open.move_to_end(key)
        try:
            if log.fd == CLOSED:
                self._add(key, log, _open(path, create=create))
            yield log if log.fd != CLOSED else None
        finally:
            with self._lock:
                log.users -= 1
                self._forget(key, log)
                idle = self._take_idle()
            for fd in idle:
                os.close(fd)

    def _add(self, key: LogKey, log: OpenLog, fd: int) -> None:
        if fd == CLOSED:
            return
        with self._lock:
            wanted = log.fd == CLOSED
            if wanted:
                log.opened(fd)
                self._open[key] = log
        if not wanted:
            os.close(fd)  # another call has opened it meanwhile

    def _take_idle(self) -> list[int]:
        excess = len(self._open) - self._max_open
        if excess <= 0:
            return []
        idle = [(key, log) for key, log in self._open.items() if not log.users]
        return [self._take(key, log) for key, log in idle[:excess]]

    def _take(self, key: LogKey, log: OpenLog) -> int:
        """Take the file of a log that nobody uses; the caller closes it."""
        fd, log.fd = log.fd, CLOSED
        del self._open[key]
        self._forget(key, log)
        return fd

    def _forget(self, key: LogKey, log: OpenLog) -> None:
        if log.fd == CLOSED and not (log.users or log.holders or log.rewritten):
            del self._logs[key]

    def _path(self, job_id: str, attempt: int) -> str:
        if not _JOB_ID.fullmatch(job_id) or attempt < 1:
            raise UsageError(f"{job_id!r} attempt {attempt} is not an attempt of a job")
        # Text, because making a Path costs more than most of what is done with it.
        return f"{self._folder}/{job_id}-{attempt}.log"


def _open(path: str, *, create: bool) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags | (os.O_CREAT if create else 0), 0o600)
    except FileNotFoundError:
        if not create:
            return CLOSED
    Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, flags | os.O_CREAT, 0o600)


@contextmanager
def _readable(job_id: str, attempt: int) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StoreUnusableError(
            f"the log of attempt {attempt} of job {job_id} cannot be read: {exc.strerror}"
        ) from exc
