"""The log files: private, masked, rotated, and never in the way."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from daemon import logs
from daemon.logs import LogSink
from sandbox.masking import Masker

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


def test_records_of_the_daemon_are_masked_lines_of_json(path, masker):
    """Message, extras and traceback alike."""
    sink = LogSink(path, masker)
    root, hook = logging.getLogger(), sys.excepthook
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure(sink)
        try:
            int(SECRET)
        except ValueError:
            logging.getLogger("x").exception("It broke", extra={"action": "broken", "why": SECRET})
    finally:
        root.handlers[:], root.level, sys.excepthook = handlers, level, hook
        sink.close()
    (line,) = path.read_text().splitlines()
    assert SECRET not in line
    record = json.loads(line)
    assert (record["action"], record["why"], record["process"]) == ("broken", "***", "daemon")
    assert "ValueError: invalid literal" in record["traceback"]
