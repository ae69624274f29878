"""The logs of attempts: appended by offset, private and bounded."""

from __future__ import annotations

import hashlib
import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.errors import (
    DaemonError,
    LeaseLostError,
    LogGapError,
    LogNotWrittenError,
    StoreUnusableError,
    UsageError,
)
from daemon.jobs.log_files import LogFiles

JOB = "job1"
DEADLINE_S = 5.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state" / "logs"


@pytest.fixture
def logs(root: Path) -> Iterator[LogFiles]:
    logs = LogFiles(root)
    yield logs
    logs.close()


def open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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


class Gate:
    """A system call that stands still until the test lets it go on, as on a slow disk."""

    def __init__(self, call: Callable[..., Any], stops: Callable[..., bool]) -> None:
        self._call = call
        self._stops = stops
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, *args: Any) -> Any:
        if self._stops(*args):
            self.reached.set()
            assert self.go_on.wait(DEADLINE_S)
        return self._call(*args)


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
