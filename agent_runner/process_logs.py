"""Logging of the long-lived processes: one JSON object per line on standard error, which the daemon masks and files.

A record is a constant sentence with ``extra={"action": …}``; ``action`` is stable snake_case, the sentence is for people.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

_to_json = json.JSONEncoder(ensure_ascii=False).encode
"""Made once: ``json.dumps`` makes an encoder for every call that asks for anything."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_TALKATIVE = ("httpx2",)
"""Libraries that tell of each request, which a job in a container is a dozen of."""
_ACTION = "action"
_MADE_UP = frozenset({_ACTION, "job_id", "end_reason", "exit_code", "tier"})
"""Fields of our own records that hold a constant, a number, or an identifier that nothing secret went into."""


class JsonLineFormatter(logging.Formatter):
    """Turns one record, with its traceback and extras, into one line of JSON."""

    def __init__(self, process: str, mask: Callable[[str], str]) -> None:
        super().__init__()
        self._process = process
        self._mask = mask
        self._latest = (-1, "")
        """A second and its text: most records share it with the one before."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line.

        Every text is masked before it becomes JSON, which writes quotes, backslashes and control characters in
        another way than a secret has them; and the whole is masked again, so that nothing escapes. A record of ours that
        holds nothing from outside is not masked at all.
        """
        mask = self._mask
        # A constant sentence, and what is said with it: there is one of every job.
        ours = not record.args and hasattr(record, _ACTION)
        clear = ours
        line: dict[str, object] = {
            "time": f"{self._second(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "message": str(record.msg) if ours else mask(record.getMessage()),
        }
        for name, value in vars(record).items():
            if name in _STANDARD:
                continue
            if isinstance(value, int | float) or (ours and name in _MADE_UP):
                line[name] = value
            else:
                line[name] = mask(str(value))
                clear = False
        if record.exc_info:
            line["traceback"] = mask(self.formatException(record.exc_info))
            clear = False
        return _to_json(line) if clear else mask(_to_json(line))

    def _second(self, seconds: int) -> str:
        latest = self._latest
        if latest[0] != seconds:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
            latest = self._latest = (seconds, text)
        return latest[1]


class LineHandler(logging.Handler):
    """Writes each record as one line. A reader that has gone away must not disturb the work: such errors are dropped."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._format = formatter.format
        self._write = stream.write
        # A finalizer may log while a record is written, on the same thread.
        self._one_at_a_time = threading.RLock()

    def handle(self, record: logging.LogRecord) -> bool:
        """Write it. There is a record of every job, so it does not pass what no handler of ours has: filters, a buffer."""
        try:
            line = self._format(record) + "\n"
            with self._one_at_a_time:
                self._write(line)
        except Exception:  # noqa: BLE001 - as of any handler
            self.handleError(record)
        return True


def configure(process: str, mask: Callable[[str], str] = str, level: int = logging.INFO) -> None:
    """Send every record of this process to standard error, which writes line by line, as JSON; called once, at start."""
    logging.raiseExceptions = False
    # Facts that no line shows and each record would look up.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 - as the "Optimization" of the logging HOWTO says
    handler = LineHandler(sys.stderr, JsonLineFormatter(process, mask))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
