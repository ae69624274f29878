"""The logs of attempts: appended by offset, private and bounded."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.errors import (
    DaemonError,
    LogGapError,
    LogNotWrittenError,
    StoreUnusableError,
    UsageError,
)
from daemon.jobs.log_files import LogFiles
from tests.contract.log_file_tools import file_size_limit, open_files

JOB = "job1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state" / "logs"


@pytest.fixture
def logs(root: Path) -> Iterator[LogFiles]:
    logs = LogFiles(root)
    yield logs
    logs.close()


class TestAppend:
    def test_appends(self, logs: LogFiles):
        """Bytes at the end make the log longer."""
        assert logs.append(JOB, 1, 0, b"ab") == 2
        assert logs.append(JOB, 1, 2, b"\xff\0c") == 5
        assert logs.length(JOB, 1) == 5
        assert logs.read(JOB, 1, 0, 100) == b"ab\xff\0c"

    def test_resend_changes_nothing(self, logs: LogFiles):
        """What is stored is skipped and only the new tail is written."""
        logs.append(JOB, 1, 0, b"hello")

        assert logs.append(JOB, 1, 0, b"hello") == 5
        assert logs.append(JOB, 1, 1, b"el") == 5
        assert logs.append(JOB, 1, 3, b"lo world") == 11
        assert logs.read(JOB, 1, 0, 100) == b"hello world"

    def test_gap_is_refused(self, logs: LogFiles):
        """Bytes beyond the end are refused with the place to continue from."""
        with pytest.raises(LogGapError) as caught:
            logs.append(JOB, 1, 1, b"x")
        assert caught.value.acknowledged == 0
        logs.append(JOB, 1, 0, b"abc")

        with pytest.raises(LogGapError) as caught:
            logs.append(JOB, 1, 4, b"")

        assert caught.value.acknowledged == 3
        assert logs.length(JOB, 1) == 3

    def test_nothing_makes_no_file(self, logs: LogFiles, root: Path):
        """An empty append to a log without a file leaves no trace."""
        assert logs.append(JOB, 1, 0, b"") == 0
        assert not root.exists()

    def test_attempts_are_apart(self, logs: LogFiles):
        """Each attempt has its own log."""
        logs.append(JOB, 1, 0, b"one")
        logs.append(JOB, 2, 0, b"two")
        logs.append("job2", 1, 0, b"three")

        assert logs.read(JOB, 1, 0, 9) + logs.read(JOB, 2, 0, 9) == b"onetwo"

    def test_private(self, logs: LogFiles, root: Path):
        """Only the owner can read logs, whatever the umask."""
        before = os.umask(0)
        try:
            logs.append(JOB, 1, 0, b"x")
        finally:
            os.umask(before)

        modes = [stat.S_IMODE(p.stat().st_mode) for p in (root, root / f"{JOB}-1.log")]
        assert modes == [0o700, 0o600]

    @pytest.mark.parametrize(
        "strange", ["", "..", "a/b", "A", "é", "a\n", "a" * 65, ".", "a.log", "\0"]
    )
    def test_strange_job_ids(self, logs: LogFiles, root: Path, strange: str):
        """An id that could be a path names no log, for any call."""
        for call in (
            lambda: logs.append(strange, 1, 0, b"x"),
            lambda: logs.read(strange, 1, 0, 1),
            lambda: logs.length(strange, 1),
            lambda: logs.sha256(strange, 1),
        ):
            with pytest.raises(UsageError):
                call()
        assert not root.exists()

    @pytest.mark.parametrize("attempt", [0, -1])
    def test_strange_attempts(self, logs: LogFiles, attempt: int):
        """Attempts count from one."""
        with pytest.raises(UsageError):
            logs.append(JOB, attempt, 0, b"x")

    def test_negative_offset(self, logs: LogFiles):
        """Offsets count from zero."""
        with pytest.raises(UsageError):
            logs.append(JOB, 1, -1, b"x")
        with pytest.raises(UsageError):
            logs.read(JOB, 1, -1, 1)

    def test_planted_link_is_not_followed(self, logs: LogFiles, root: Path, tmp_path: Path):
        """A link in the place of a log is refused and its target stays as it is."""
        target = tmp_path / "target"
        target.write_text("precious")
        root.mkdir(parents=True)
        (root / f"{JOB}-1.log").symlink_to(target)

        with pytest.raises(DaemonError):
            logs.append(JOB, 1, 0, b"x")
        with pytest.raises(StoreUnusableError):
            logs.read(JOB, 1, 0, 9)

        assert target.read_text() == "precious"

    def test_full_disk(self, logs: LogFiles, root: Path):
        """A write that fits only in part is taken back, and works when there is room."""
        logs.append(JOB, 1, 0, b"a" * 5000)

        with file_size_limit(8000), pytest.raises(LogNotWrittenError, match="make room") as caught:
            logs.append(JOB, 1, 5000, b"b" * 5000)

        assert caught.value.retryable
        assert logs.length(JOB, 1) == (root / f"{JOB}-1.log").stat().st_size == 5000
        assert logs.append(JOB, 1, 5000, b"c" * 5000) == 10_000
        expected = b"a" * 5000 + b"c" * 5000
        assert logs.read(JOB, 1, 0, 20_000) == expected
        assert logs.sha256(JOB, 1) == hashlib.sha256(expected).hexdigest()

    def test_root_that_cannot_be(self, tmp_path: Path):
        """A file in the place of the folder is a clear error."""
        (tmp_path / "logs").write_text("")

        with pytest.raises(LogNotWrittenError, match=JOB):
            LogFiles(tmp_path / "logs").append(JOB, 1, 0, b"x")

    @settings(max_examples=50, deadline=None, database=None)
    @given(
        sends=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=20),
        close=st.sets(st.integers(0, 19)),
    )
    def test_any_order_of_resends(self, tmp_path_factory, sends, close):
        """However chunks of one stream overlap and repeat, the log is a prefix of the stream."""
        stream = bytes(range(90))
        logs = LogFiles(tmp_path_factory.mktemp("logs"))
        stored = 0
        for number, (offset, size) in enumerate(sends):
            if number in close:
                logs.close_attempt(JOB, 1)
            chunk = stream[offset : offset + size]
            if offset > stored:
                with pytest.raises(LogGapError) as caught:
                    logs.append(JOB, 1, offset, chunk)
                assert caught.value.acknowledged == stored
            else:
                stored = max(stored, offset + size)
                assert logs.append(JOB, 1, offset, chunk) == stored

        assert logs.read(JOB, 1, 0, 100) == stream[:stored]
        assert logs.sha256(JOB, 1) == hashlib.sha256(stream[:stored]).hexdigest()
        logs.close()

    def test_threads(self, logs: LogFiles):
        """Calls from several threads for several logs end as calls from one."""
        chunks = [bytes([number]) * 1000 for number in range(50)]

        def send(job: str) -> None:
            for number, chunk in enumerate(chunks):
                logs.append(job, 1, number * 1000, chunk)

        small = LogFiles(logs._root, max_open=2)
        jobs = [f"job{number}" for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(send, jobs * 3))
            hashes = set(pool.map(lambda job: small.sha256(job, 1), jobs))
        small.close()

        assert hashes == {hashlib.sha256(b"".join(chunks)).hexdigest()}


class TestRead:
    def test_no_file(self, logs: LogFiles, root: Path):
        """An attempt that wrote nothing has an empty log; asking leaves no trace."""
        assert logs.length(JOB, 1) == 0
        assert logs.read(JOB, 1, 0, 10) == b""
        assert logs.sha256(JOB, 1) == hashlib.sha256().hexdigest()
        assert not root.exists()

    def test_parts(self, logs: LogFiles):
        """Any part can be read; behind the end there is nothing."""
        logs.append(JOB, 1, 0, b"0123456789")

        assert logs.read(JOB, 1, 3, 4) == b"3456"
        assert logs.read(JOB, 1, 8, 4) == b"89"
        assert logs.read(JOB, 1, 10, 4) == logs.read(JOB, 1, 99, 4) == b""
        assert logs.read(JOB, 1, 0, 0) == b""

    def test_hash_while_it_grows(self, logs: LogFiles):
        """The hash is that of what is stored, at each length."""
        for number in range(3):
            logs.append(JOB, 1, number * 2, b"xy")
            assert logs.sha256(JOB, 1) == hashlib.sha256(b"xy" * (number + 1)).hexdigest()

    def test_after_a_restart(self, logs: LogFiles, root: Path):
        """A new object continues where the files end."""
        logs.append(JOB, 1, 0, b"abc")
        logs.close()
        after = LogFiles(root)

        assert after.length(JOB, 1) == 3
        assert after.append(JOB, 1, 2, b"cd") == 4
        assert after.sha256(JOB, 1) == hashlib.sha256(b"abcd").hexdigest()
        after.close()


class TestOpenFiles:
    def test_bounded(self, root: Path):
        """However many logs are written, few files are open, and none after close."""
        before = open_files()
        logs = LogFiles(root, max_open=4)
        for number in range(40):
            logs.append(f"job{number}", 1, 0, b"x")

        assert open_files() - before <= 4
        logs.append("job0", 1, 1, b"y")
        assert logs.read("job0", 1, 0, 9) == b"xy"
        logs.close()
        logs.close()
        assert open_files() == before

    def test_ended_attempt(self, logs: LogFiles):
        """The file of an ended attempt is closed; it can still be read, and closing again is harmless."""
        before = open_files()
        logs.append(JOB, 1, 0, b"x")
        logs.close_attempt(JOB, 1)
        logs.close_attempt(JOB, 1)

        assert open_files() == before
        assert logs.read(JOB, 1, 0, 9) == b"x"
