"""The logs of the three processes: masked, private, rotated by size.

The children write to a pipe and the daemon files what comes out, so there is one place that masks
and one that rotates. A log never disturbs the work: on a full disk or a vanished folder lines are
lost, counted, and the count is written when the disk takes lines again.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from types import TracebackType

from agent_runner.process_logs import JsonLineFormatter
from sandbox.masking.masker import Masker
from sandbox.masking.stream import FailClosed, Stream

MAX_LOG_BYTES = 10 << 20
KEPT_LOGS = 5
_RECENT_BYTES = 16 << 10

logger = logging.getLogger(__name__)


class LogSink:
    """One log file. Fed by one process's pipe, or record by record; used by the event loop only."""

    def __init__(
        self,
        path: Path,
        masker: Masker,
        *,
        max_bytes: int = MAX_LOG_BYTES,
        kept: int = KEPT_LOGS,
        echo_fd: int = -1,
    ) -> None:
        self._path = path
        self._masker = masker
        self._max_bytes = max_bytes
        self._kept = kept
        self._echo_fd = echo_fd
        self._fd = -1
        self._size = 0
        self._lost = 0
        self._recent = bytearray()

    def stream(self) -> Stream:
        """Open the masking of one descriptor; its output goes to ``append``."""
        return FailClosed(self._masker.stream())

    def mask(self, text: str) -> str:
        """Return a whole text masked."""
        return self._masker.mask_text(text)

    def append_record(self, record: str) -> None:
        """Append one whole line, masked already; called for each record of the daemon itself."""
        self.append(record.encode("utf-8", "replace") + b"\n")

    def append(self, masked: bytes) -> None:
        """Append bytes that are masked already. Never raises for what the disk does."""
        if not masked:
            return
        self._recent += masked
        del self._recent[:-_RECENT_BYTES]
        if self._echo_fd >= 0:
            self._echo(masked)
        try:
            self._open()
            if self._size and self._size + len(masked) > self._max_bytes:
                self._rotate()
            if self._lost:
                self._write(b"[runner: %d bytes of this log were lost]\n" % self._lost)
                self._lost = 0
            self._write(masked)
        except OSError:
            self._lost += len(masked)
            self.close()

    def forget_recent(self) -> None:
        """Make ``tail`` begin here; called at each start of the process."""
        self._recent.clear()

    def tail(self, lines: int) -> str:
        """Return the last lines since ``forget_recent``, for the report of a failure."""
        text = bytes(self._recent).decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-lines:])

    def close(self) -> None:
        """Close the file; a later ``append`` opens it again. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        # A file without a name was deleted below us; its lines would be read by nobody.
        if self._fd >= 0 and os.fstat(self._fd).st_nlink:
            return
        self.close()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        for number in range(self._kept - 1, 0, -1):
            older = rotated(self._path, number)
            if older.exists():
                older.replace(rotated(self._path, number + 1))
        self._path.replace(rotated(self._path, 1))
        self.close()
        self._open()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            self._size += written
            view = view[written:]

    def _echo(self, data: bytes) -> None:
        try:
            os.write(self._echo_fd, data)
        except OSError:
            self._echo_fd = -1  # the reader has gone; the file still has every line


class SinkHandler(logging.Handler):
    """Sends the daemon's own records to its log."""

    def __init__(self, sink: LogSink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """File one record."""
        self._sink.append_record(self.format(record))


def configure(sink: LogSink) -> None:
    """Send every record of this process to the sink as JSON lines; called once, by the daemon."""
    handler = SinkHandler(sink)
    handler.setFormatter(JsonLineFormatter("daemon", sink.mask))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # A crash would otherwise be printed past the masking.
    sys.excepthook = _log_crash


def _log_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    facts = {"action": "daemon_crashed"}
    logger.critical("The daemon crashed", extra=facts, exc_info=(kind, error, trace))


def rotated(path: Path, number: int) -> Path:
    """Return the name of an older part of a log; 1 is the youngest."""
    return path.with_name(f"{path.name}.{number}")
