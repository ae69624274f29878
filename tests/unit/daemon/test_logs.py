"""The log files: private, masked, rotated, and never in the way."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent_runner.process_logs import JsonLineFormatter
from daemon import logs
from daemon.logs import LogSink
from sandbox.masking.masker import Masker

SECRET = "canary-2342-heron"


@pytest.fixture
def masker() -> Masker:
    made = Masker()
    made.add("KEY", SECRET)
    return made


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / "agent-runner.log"


def test_a_log_is_private_and_appended_to(path, masker):
    """Mode 0600 in a folder of 0700; a second sink goes on where the first one ended."""
    for text in (b"one\n", b"two\n"):
        sink = LogSink(path, masker)
        sink.append(text)
        sink.close()
    assert path.read_bytes() == b"one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_log_is_rotated_by_size_and_the_oldest_goes(path, masker):
    """Never more than the kept parts, each at most as large as allowed, newest first."""
    sink = LogSink(path, masker, max_bytes=10, kept=2)
    for number in range(6):
        sink.append(b"line %d\n" % number)
    sink.close()
    assert path.read_bytes() == b"line 5\n"
    assert logs.rotated(path, 1).read_bytes() == b"line 4\n"
    assert logs.rotated(path, 2).read_bytes() == b"line 3\n"
    assert len(list(path.parent.iterdir())) == 3


def test_a_vanished_folder_is_made_again(path, masker):
    """A deleted log takes lines again, in a file that can be found."""
    sink = LogSink(path, masker)
    sink.append(b"before\n")
    path.unlink()
    path.parent.rmdir()
    sink.append(b"after\n")
    sink.close()
    assert path.read_bytes() == b"after\n"


def test_lost_bytes_are_counted(path, masker):
    """Where the disk takes nothing nothing is raised; later the log says how much is missing."""
    path.parent.write_text("in the way")
    sink = LogSink(path, masker)
    sink.append(b"lost\n")
    path.parent.unlink()
    sink.append(b"kept\n")
    sink.close()
    assert path.read_bytes() == b"[runner: 5 bytes of this log were lost]\nkept\n"
    assert sink.tail(5) == "lost\nkept"


def test_a_link_is_not_followed(path, masker, tmp_path):
    """A planted link does not lead the log elsewhere."""
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    sink = LogSink(path, masker)
    sink.append(b"text\n")
    assert not (tmp_path / "elsewhere").exists()


def test_the_tail_begins_at_the_last_start(path, masker):
    """What an earlier start printed explains nothing."""
    sink = LogSink(path, masker)
    sink.append(b"old\n")
    sink.forget_recent()
    sink.append(b"1\n2\n3\n")
    assert sink.tail(2) == "2\n3"
    sink.close()


def test_a_secret_split_over_two_reads_is_masked(path, masker):
    """One masking stream per descriptor holds back what could become a secret."""
    sink = LogSink(path, masker)
    stream = sink.stream()
    for part in (f"a {SECRET[:5]}", SECRET[5:], " b\n"):
        sink.append(stream.feed(part.encode()))
    sink.append(stream.close())
    sink.close()
    assert path.read_bytes() == b"a *** b\n"


@contextmanager
def configured(sink: LogSink) -> Iterator[logging.Logger]:
    """Log to a sink for as long as the block lasts."""
    root, hook = logging.getLogger(), sys.excepthook
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure(sink)
        yield logging.getLogger("x")
    finally:
        root.handlers[:], root.level, sys.excepthook = handlers, level, hook
        sink.close()


def test_records_of_the_daemon_are_masked_lines_of_json(path, masker):
    """Message, extras and traceback alike."""
    with configured(LogSink(path, masker)) as logger:
        try:
            int(SECRET)
        except ValueError:
            logger.exception("It broke", extra={"action": "broken", "why": SECRET})
    (line,) = path.read_text().splitlines()
    assert SECRET not in line
    record = json.loads(line)
    assert (record["action"], record["why"], record["process"]) == ("broken", "***", "daemon")
    assert "ValueError: invalid literal" in record["traceback"]


ESCAPED = [
    'say-"canary"-7331',
    "back\\slash\\canary",
    "tab\tcanary\t7331",
    'first line 7331\nsecond "line" 7331',
    "umläut-kanarie-7331",
]
"""Values that JSON writes in another way than they are."""


def leaks(text: str, secret: str) -> bool:
    """Tell whether a text shows a line of a secret, as it is or as JSON has it."""
    lines = [line for line in secret.splitlines() if len(line) > 7]
    forms = {form for line in lines for form in (line, *_json_forms(line))}
    return any(form in text for form in forms)


def fail(text: str) -> None:
    raise ValueError(text)


def _json_forms(text: str) -> list[str]:
    return [json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)]


class Shows:
    """An extra that is no text, but becomes one."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


@pytest.mark.parametrize("secret", ESCAPED)
def test_a_secret_that_json_escapes_is_masked_in_our_own_records(path, secret):
    """Message, extras of any type and traceback are masked before they become JSON."""
    masker = Masker()
    masker.add("KEY", secret)
    extra = {"action": "broken", "why": f"<{secret}>", "what": Shows(secret)}
    with configured(LogSink(path, masker)) as logger:
        try:
            fail(secret)
        except ValueError:
            logger.exception("It broke: %s", secret, extra=extra)
    formatter = JsonLineFormatter("agent-runner", masker.mask_text)
    record = logging.makeLogRecord({"msg": f"It broke: {secret}", **extra})
    for line in (path.read_text(), formatter.format(record)):
        assert not leaks(line, secret), line
        document = json.loads(line)
        assert document["message"].startswith("It broke: ***")
        assert document["why"].startswith("<***")
        assert document["what"].startswith("***")


@pytest.mark.parametrize("secret", ESCAPED)
def test_a_secret_that_json_escapes_is_masked_in_the_output_of_a_child(path, secret):
    """A child that does not know the value files it in a line of JSON."""
    masker = Masker()
    assert masker.add("KEY", secret)
    sink = LogSink(path, masker)
    stream = sink.stream()
    for form in _json_forms(secret):
        sink.append(stream.feed(f'{{"message": "{form}"}}\n'.encode()))
    sink.append(stream.close())
    sink.close()
    assert not leaks(path.read_text(), secret), path.read_text()
