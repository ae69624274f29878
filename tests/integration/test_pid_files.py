"""PID files: only the very process that wrote one is ever signalled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from daemon.supervisor import pid_files
from daemon.supervisor.pid_files import ProcessIdentity
from tests.waiting import wait_until

NONCE = "5f2e9c1d00aa77b3"
SLEEPER = "import signal; signal.pause()"


def identified(pid: int, nonce: str) -> ProcessIdentity:
    identity = pid_files.identify(pid, nonce)
    assert identity is not None
    return identity


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A living process that is none of ours, although it has our nonce in its argv."""
    with subprocess.Popen([sys.executable, "-c", SLEEPER, "--instance", NONCE]) as process:
        wait_until(lambda: pid_files.identify(process.pid, NONCE), 20)
        yield process
        process.kill()


def test_a_living_process_is_found_and_signalled(tmp_path, bystander):
    """The file is private, reads back whole, and leads to the process."""
    path = tmp_path / "daemon.pid"
    identity = identified(bystander.pid, NONCE)
    pid_files.write(path, identity)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["daemon.pid"]
    assert pid_files.read(path) == identity
    wait_until(lambda: pid_files.verify(identity), 20)
    assert pid_files.send_signal(identity, signal.SIGTERM)
    assert bystander.wait(20) == -signal.SIGTERM
    assert not pid_files.send_signal(identity, signal.SIGTERM)


@pytest.mark.parametrize(
    "change",
    [
        {"start_ticks": 1},
        {"nonce": "another-nonce"},
        {"nonce": NONCE[:-1]},
        {"boot_id": "another-boot"},
    ],
    ids=["ticks", "nonce", "part-of-nonce", "boot"],
)
def test_a_reused_or_foreign_pid_is_never_signalled(bystander, change):
    """One wrong fact is enough."""
    right = identified(bystander.pid, NONCE)
    wait_until(lambda: pid_files.verify(right), 20)
    wrong = right._replace(**change)
    assert not pid_files.verify(wrong)
    assert not pid_files.send_signal(wrong, signal.SIGKILL)
    assert bystander.poll() is None


def test_a_zombie_is_not_alive():
    """A process that has ended but was not collected counts as gone."""
    process = subprocess.Popen([sys.executable, "-c", "", "--instance", NONCE])
    identity = identified(process.pid, NONCE)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not pid_files.verify(identity)
    assert process.wait() == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"4711\n",
        b"[]",
        b'{"pid": 1}',
        b'{"pid": true, "start_ticks": 1, "boot_id": "b", "nonce": "n"}',
        b'{"pid": -1, "start_ticks": 1, "boot_id": "b", "nonce": "n"}',
        b'{"pid": 5, "start_ticks": "1", "boot_id": "b", "nonce": "n"}',
        b'{"pid": 5, "start_ticks": 1, "boot_id": "b", "nonce": ""}',
        b'{"pid": 5, "start_ticks": 1, "boot_id": 7, "nonce": "n"}',
        b"[" * 100_000,
    ],
)
def test_a_torn_or_foreign_file_names_nobody(tmp_path, content):
    """Whatever stands in the file, reading it does not fail."""
    path = tmp_path / "daemon.pid"
    path.write_bytes(content)
    assert pid_files.read(path) is None


def test_a_missing_file_names_nobody(tmp_path):
    """No file is as good as an empty one."""
    assert pid_files.read(tmp_path / "daemon.pid") is None
    assert pid_files.read(tmp_path) is None


def test_only_the_own_file_is_removed(tmp_path):
    """A file that names somebody else by now stays."""
    path = tmp_path / "daemon.pid"
    mine = identified(os.getpid(), "mine")
    pid_files.write(path, mine._replace(nonce="other"))
    pid_files.remove(path, mine)
    assert path.exists()
    pid_files.write(path, mine)
    pid_files.remove(path, mine)
    assert not path.exists()
    pid_files.remove(path, None)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    """A crash or full disk in the middle changes nothing that a reader sees."""
    path = tmp_path / "daemon.pid"
    mine = identified(os.getpid(), "mine")
    pid_files.write(path, mine)

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        pid_files.write(path, mine._replace(nonce="new"))
    assert pid_files.read(path) == mine
    assert json.loads(path.read_bytes())["nonce"] == "mine"
    assert os.listdir(tmp_path) == ["daemon.pid"]
