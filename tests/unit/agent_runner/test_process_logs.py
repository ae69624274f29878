"""The log lines of the long-lived processes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

from agent_runner.process_logs import JsonLineFormatter

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
