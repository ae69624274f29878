"""The logs of attempts that end, are sent again, or lie on a slow disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from daemon.errors import LeaseLostError, LogGapError, LogNotWrittenError
from daemon.jobs.log_files import LogFiles
from tests.contract.log_file_tools import DEADLINE_S, Gate, file_size_limit, open_files

JOB = "job1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state" / "logs"


@pytest.fixture
def logs(root: Path) -> Iterator[LogFiles]:
    logs = LogFiles(root)
    yield logs
    logs.close()


class TestSeal:
    def test_nothing_is_added(self, logs: LogFiles):
        """What is stored can be read and sent again; one byte more is refused."""
        with logs.held(JOB, 1):
            logs.append(JOB, 1, 0, b"abc")
            logs.seal(JOB, 1)

            assert logs.append(JOB, 1, 0, b"abc") == 3
            assert logs.append(JOB, 1, 3, b"") == 3
            with pytest.raises(LeaseLostError):
                logs.append(JOB, 1, 1, b"bcd")
            with pytest.raises(LogGapError):
                logs.append(JOB, 1, 4, b"e")

            assert logs.read(JOB, 1, 0, 9) == b"abc"
            assert logs.sha256(JOB, 1) == hashlib.sha256(b"abc").hexdigest()

    def test_log_without_a_file(self, logs: LogFiles, root: Path):
        """An attempt that has written nothing so far never will."""
        with logs.held(JOB, 1):
            assert logs.try_seal(JOB, 1)

            with pytest.raises(LeaseLostError):
                logs.append(JOB, 1, 0, b"x")

        assert logs.length(JOB, 1) == 0

    def test_is_kept_for_who_holds_it(self, root: Path):
        """Closing the file, for its end or for others, does not open the log again."""
        logs = LogFiles(root, max_open=1)
        with logs.held(JOB, 1):
            logs.append(JOB, 1, 0, b"abc")
            logs.seal(JOB, 1)
            logs.close_attempt(JOB, 1)
            for number in range(3):
                logs.append(f"other{number}", 1, 0, b"x")

            with pytest.raises(LeaseLostError):
                logs.append(JOB, 1, 3, b"x")
        logs.close()

    def test_is_kept_for_nobody_else(self, logs: LogFiles):
        """However many logs were sealed, nothing stays behind; who comes later asks the store first."""
        for number in range(9):
            with logs.held(f"job{number}", 1), logs.held(f"job{number}", 1):
                logs.append(f"job{number}", 1, 0, b"x")
                logs.seal(f"job{number}", 1)
                logs.close_attempt(f"job{number}", 1)
            logs.seal(f"job{number}", 2)
            logs.read(f"job{number}", 3, 0, 9)

        assert not logs._logs

    def test_held_files_are_bounded_too(self, root: Path):
        """Who holds a log does not hold its file open."""
        before = open_files()
        logs = LogFiles(root, max_open=4)
        with ExitStack() as holding:
            for number in range(20):
                holding.enter_context(logs.held(f"job{number}", 1))
                logs.append(f"job{number}", 1, 0, b"x")

            assert open_files() - before <= 4
            assert logs.append("job0", 1, 1, b"y") == 2
            assert logs.known_sha256("job0", 1) == hashlib.sha256(b"xy").hexdigest()
        logs.close()
        assert open_files() == before
        assert not logs._logs


class TestRewrite:
    def test_is_written_over(self, logs: LogFiles):
        """What is stored stays readable until the right bytes are in its place."""
        logs.append(JOB, 1, 0, b"XXXXt!")
        logs.seal(JOB, 1)

        assert logs.rewrite(JOB, 1)

        assert (logs.acknowledged(JOB, 1), logs.length(JOB, 1)) == (0, 6)
        with pytest.raises(LogGapError) as caught:
            logs.append(JOB, 1, 6, b"x")
        assert caught.value.acknowledged == 0
        assert logs.append(JOB, 1, 0, b"righ") == logs.acknowledged(JOB, 1) == 4
        assert logs.read(JOB, 1, 0, 9) == b"right!"
        assert logs.sha256(JOB, 1) == hashlib.sha256(b"right!").hexdigest()
        assert logs.known_sha256(JOB, 1) is None
        assert logs.append(JOB, 1, 2, b"ght and more") == logs.length(JOB, 1) == 14
        assert logs.read(JOB, 1, 0, 99) == b"right and more"
        assert logs.known_sha256(JOB, 1) == hashlib.sha256(b"right and more").hexdigest()

    def test_once(self, root: Path):
        """A second try would not help; it is remembered until the attempt ends, whatever is closed meanwhile."""
        logs = LogFiles(root, max_open=1)
        logs.append(JOB, 1, 0, b"wrong")
        assert logs.rewrite(JOB, 1)
        logs.append("other", 1, 0, b"x")
        assert logs.append(JOB, 1, 0, b"right") == 5
        logs.append("other", 1, 1, b"x")

        assert not logs.rewrite(JOB, 1)
        logs.close_attempt(JOB, 1)
        logs.close_attempt("other", 1)
        assert not logs._logs
        assert logs.rewrite(JOB, 1)

    def test_full_disk(self, logs: LogFiles):
        """A write over the end that fits only in part takes nothing away."""
        logs.append(JOB, 1, 0, b"a" * 5000)
        logs.rewrite(JOB, 1)

        with file_size_limit(8000), pytest.raises(LogNotWrittenError):
            logs.append(JOB, 1, 0, b"b" * 9000)

        assert (logs.acknowledged(JOB, 1), logs.length(JOB, 1)) == (0, 5000)
        assert logs.append(JOB, 1, 0, b"b" * 9000) == 9000
        assert logs.sha256(JOB, 1) == hashlib.sha256(b"b" * 9000).hexdigest()


class TestSlowDisk:
    """What waits for the disk holds nobody else up. Each call that must not wait runs in a thread with a deadline."""

    @pytest.fixture
    def pool(self) -> Iterator[ThreadPoolExecutor]:
        with ThreadPoolExecutor(4) as pool:
            yield pool

    def test_append_holds_up_no_reader(self, logs: LogFiles, pool: ThreadPoolExecutor, monkeypatch):
        """What is stored can be read, measured and asked for while more is being written."""
        logs.append(JOB, 1, 0, b"stored")
        gate = Gate(os.pwrite, lambda *_: True)
        monkeypatch.setattr(os, "pwrite", gate)
        writing = pool.submit(logs.append, JOB, 1, 6, b" and more")
        assert gate.reached.wait(DEADLINE_S)

        assert pool.submit(logs.read, JOB, 1, 0, 100).result(DEADLINE_S) == b"stored"
        assert pool.submit(logs.length, JOB, 1).result(DEADLINE_S) == 6
        assert pool.submit(logs.known_sha256, JOB, 1).result(DEADLINE_S) is None

        gate.go_on.set()
        assert writing.result(DEADLINE_S) == 15

    def test_opening_holds_up_no_other_log(
        self, logs: LogFiles, pool: ThreadPoolExecutor, monkeypatch
    ):
        """A folder that is slow to find a file stops only who asks for that file."""
        before = open_files()
        gate = Gate(os.open, lambda path, *_: "slow" in str(path))
        monkeypatch.setattr(os, "open", gate)
        opening = [pool.submit(logs.append, "slow", 1, 0, b"x") for _ in range(2)]
        assert gate.reached.wait(DEADLINE_S)

        assert pool.submit(logs.append, JOB, 1, 0, b"abc").result(DEADLINE_S) == 3

        gate.go_on.set()
        assert [call.result(DEADLINE_S) for call in opening] == [1, 1]
        assert logs.read("slow", 1, 0, 9) == b"x"
        assert open_files() - before == 2

    def test_hashing_holds_up_no_append(
        self, logs: LogFiles, root: Path, pool: ThreadPoolExecutor, monkeypatch
    ):
        """The hash of a log from before a restart is that of its length at the call; the next one goes on from there."""
        logs.append(JOB, 1, 0, b"abc")
        logs.close()
        logs = LogFiles(root)
        gate = Gate(os.pread, lambda *_: True)
        monkeypatch.setattr(os, "pread", gate)
        hashing = pool.submit(logs.sha256, JOB, 1)
        assert gate.reached.wait(DEADLINE_S)

        assert pool.submit(logs.append, JOB, 1, 3, b"def").result(DEADLINE_S) == 6

        gate.go_on.set()
        assert hashing.result(DEADLINE_S) == hashlib.sha256(b"abc").hexdigest()
        assert logs.sha256(JOB, 1) == hashlib.sha256(b"abcdef").hexdigest()
        assert logs.known_sha256(JOB, 1) == hashlib.sha256(b"abcdef").hexdigest()
        logs.close()

    def test_hash_that_needs_no_disk(self, logs: LogFiles):
        """Known while the log is written here, and for an empty log; not after a restart."""
        assert logs.known_sha256(JOB, 1) == hashlib.sha256().hexdigest()
        logs.append(JOB, 1, 0, b"abc")
        assert logs.known_sha256(JOB, 1) == hashlib.sha256(b"abc").hexdigest()
        logs.close()

        assert logs.known_sha256(JOB, 1) is None

    def test_seal_waits_for_what_is_being_written(
        self, logs: LogFiles, pool: ThreadPoolExecutor, monkeypatch
    ):
        """After it, nothing changes; nobody need wait in the wrong place."""
        gate = Gate(os.pwrite, lambda *_: True)
        monkeypatch.setattr(os, "pwrite", gate)
        writing = pool.submit(logs.append, JOB, 1, 0, b"abc")
        assert gate.reached.wait(DEADLINE_S)

        assert not pool.submit(logs.try_seal, JOB, 1).result(DEADLINE_S)
        sealing = pool.submit(logs.seal, JOB, 1)
        assert not sealing.done()

        gate.go_on.set()
        sealing.result(DEADLINE_S)
        assert writing.result(DEADLINE_S) == logs.length(JOB, 1) == 3
        with pytest.raises(LeaseLostError):
            logs.append(JOB, 1, 3, b"d")
