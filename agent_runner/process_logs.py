"""Logging of the long-lived processes: one JSON object per line on standard error, which the daemon masks and files.

A record is a constant sentence with ``extra={"action": …}``; ``action`` is stable snake_case, the sentence is for people.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable

_to_json = json.JSONEncoder(ensure_ascii=False).encode
"""Made once: ``json.dumps`` makes an encoder for every call that asks for anything."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_ACTION = "action"
_MADE_UP = frozenset({_ACTION, "job_id"})
"""Fields of our own records that hold a constant, or an identifier that nothing secret went into."""
_LONGEST_CLEAR = 7
"""Characters of a word in which no part of a secret is found that the whole line does not show: a secret that is cut off
is one from eight bytes on (``MaskEngine.cut_tail``)."""


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
        another way than a secret has them; and the whole is masked again, so that nothing escapes. The constants of our own
        records and short words are left to that: there is a record of every job.
        """
        mask = self._mask
        ours = not record.args and hasattr(record, _ACTION)
        line: dict[str, object] = {
            "time": f"{self._second(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "message": str(record.msg) if ours else mask(record.getMessage()),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD:
                if isinstance(value, int | float):
                    line[name] = value
                else:
                    text = str(value)
                    clear = (ours and name in _MADE_UP) or len(text) <= _LONGEST_CLEAR
                    line[name] = text if clear and text.isascii() and _is_word(text) else mask(text)
        if record.exc_info:
            line["traceback"] = mask(self.formatException(record.exc_info))
        return mask(_to_json(line))

    def _second(self, seconds: int) -> str:
        latest = self._latest
        if latest[0] != seconds:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
            latest = self._latest = (seconds, text)
        return latest[1]


def _is_word(text: str) -> bool:
    """Tell whether JSON writes a text as it is."""
    return text.replace("_", "").isalnum()


def configure(process: str, mask: Callable[[str], str] = str, level: int = logging.INFO) -> None:
    """Send every record of this process to standard error as JSON lines; called once, at start.

    A reader that has gone away (a daemon that was killed) must not disturb the work: write errors are dropped.
    """
    logging.raiseExceptions = False
    # Facts that no line shows and each record would look up.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLineFormatter(process, mask))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
