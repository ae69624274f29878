"""The log lines of the long-lived processes."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from agent_runner.process_logs import JsonLineFormatter, LineHandler

NOON = 1_700_000_000


def record(created: float, text: str = "said", **extra: object) -> logging.LogRecord:
    """Return a record of this moment."""
    made = logging.LogRecord("x", logging.INFO, "x.py", 1, text, (), None)
    made.created, made.msecs = created, (created % 1) * 1000
    vars(made).update(extra)
    return made


def test_a_line_has_the_moment_of_its_record() -> None:
    """The text of a second is kept for the next record, never for another second."""
    formatter = JsonLineFormatter("agent-runner", str)
    times = [
        json.loads(formatter.format(record(created)))["time"]
        for created in (NOON + 0.25, NOON + 0.5, NOON + 1, NOON + 0.75)
    ]
    assert times == [
        "2023-11-14T22:13:20.250Z",
        "2023-11-14T22:13:20.500Z",
        "2023-11-14T22:13:21.000Z",
        "2023-11-14T22:13:20.750Z",
    ]


def test_a_line_is_masked_before_and_after_it_becomes_json() -> None:
    """A secret with a quote in it is hidden in the sentence and in every extra."""
    secret = 'to"ken'
    formatter = JsonLineFormatter("agent-runner", lambda text: text.replace(secret, "***"))
    line = json.loads(formatter.format(record(NOON, f"é {secret}", why=[secret], attempt=2)))
    assert (line["message"], line["why"], line["attempt"]) == ("é ***", "['***']", 2)
    assert line["process"] == "agent-runner"


def test_only_a_line_without_anything_from_outside_is_not_masked() -> None:
    """There is a line of every job: constants, numbers and identifiers; one word more, and all of it is masked."""
    masked: list[str] = []

    def mask(text: str) -> str:
        masked.append(text)
        return text

    formatter = JsonLineFormatter("agent-runner", mask)
    facts = {"action": "attempt_finished", "job_id": "0a", "attempt": 1, "exit_code": "0"}
    assert json.loads(formatter.format(record(NOON, "attempt finished", **facts)))["job_id"] == "0a"
    assert masked == []

    formatter.format(record(NOON, "attempt finished", **facts, why="x"))
    assert masked[0] == "x"
    assert "attempt finished" in masked[1]


def test_a_line_of_others_is_masked_whole() -> None:
    """What a library says is no constant, whatever its fields are called."""
    formatter = JsonLineFormatter("agent-runner", lambda text: text.replace("hidden", "***"))
    line = json.loads(formatter.format(record(NOON, "hidden", job_id="hidden")))
    assert (line["message"], line["job_id"]) == ("***", "***")


def test_a_request_of_a_library_is_no_line() -> None:
    """A job in a container is a dozen of them; what goes wrong with one is said by us, or by the library as a warning."""
    script = """
import logging
from agent_runner.process_logs import configure
configure("agent-runner")
for name in ("httpx2", "sandbox"):
    logging.getLogger(name).info("said")
    logging.getLogger(name).warning("warned")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert lines == ["warned", "said", "warned"]


def test_a_reader_that_has_gone_disturbs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each record is one line at once; when nobody can read it, it is dropped."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    read_fd, write_fd = os.pipe()
    with suppress(BrokenPipeError), open(write_fd, "w", buffering=1, encoding="utf-8") as stream:
        handler = LineHandler(stream, JsonLineFormatter("agent-runner", str))
        handler.handle(record(NOON, "first"))
        handler.handle(record(NOON, "second"))
        lines = os.read(read_fd, 1000).splitlines()
        assert [json.loads(line)["message"] for line in lines] == ["first", "second"]
        os.close(read_fd)
        handler.handle(record(NOON, "third"))


def test_a_record_may_be_made_while_another_is_written() -> None:
    """As by a finalizer that the collector of garbage calls there: neither waits for the other."""

    class Finalizing(io.StringIO):
        def write(self, text: str) -> int:
            if "outer" in text:
                handler.handle(record(NOON, "inner"))
            return super().write(text)

    stream = Finalizing()
    handler = LineHandler(stream, JsonLineFormatter("agent-runner", str))
    writing = threading.Thread(target=handler.handle, args=[record(NOON, "outer")], daemon=True)
    writing.start()
    writing.join(30)
    lines = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert lines == ["inner", "outer"]
