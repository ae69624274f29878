"""Spawning a process, and waiting for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from daemon.supervisor.child_process import spawn_process

LOOK = """
import json, os
fds = [int(name) for name in os.listdir("/proc/self/fd")]
print(json.dumps({
    "fds": [fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}")],
    "env": dict(os.environ),
    "leads": os.getsid(0) == os.getpid(),
    "null": os.path.samestat(os.fstat(0), os.stat("/dev/null")),
}))
"""


def looked(kept: list[int]) -> dict[str, Any]:
    """Return what a process that is spawned finds."""
    read_fd, write_fd = os.pipe()
    child = spawn_process([sys.executable, "-c", LOOK], {"ONLY": "1"}, kept=kept, output=write_fd)
    os.close(write_fd)
    with os.fdopen(read_fd) as pipe:
        found: dict[str, Any] = json.loads(pipe.read())
    assert child.wait(10) == 0
    return found


def test_it_has_what_it_was_given_and_nothing_else():
    """A descriptor that our caller left open is not passed on, one that is kept is not inherited by the next process."""
    stray, kept = os.memfd_create("stray"), os.memfd_create("kept")
    os.set_inheritable(stray, True)
    try:
        found = looked([kept])
        assert not os.get_inheritable(kept)
        again = looked([])
    finally:
        os.close(stray)
        os.close(kept)
    assert kept in found["fds"]
    assert stray not in found["fds"]
    assert kept not in again["fds"]
    assert found["env"]["ONLY"] == "1"
    assert "HOME" not in found["env"]
    assert found["leads"]
    assert found["null"]


def test_a_stray_descriptor_above_the_limit_is_no_obstacle():
    """It was opened before the limit was lowered: ``ulimit -n`` in a script."""
    script = (
        "import os, resource, sys\n"
        "from daemon.supervisor.child_process import spawn_process\n"
        "os.dup2(2, 200)\n"
        "os.set_inheritable(200, True)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n"
        "child = spawn_process(['/bin/ls', '/proc/self/fd'], {}, kept=[], output=1)\n"
        "sys.exit(child.wait(10))\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, check=True)
    assert b"200" not in done.stdout.split()
    assert b"0" in done.stdout.split()


def test_other_threads_may_open_and_close_what_they_like():
    """What was listed may be gone, or another, a moment later."""
    ended = threading.Event()

    def churn() -> None:
        while not ended.is_set():
            os.close(os.dup(2))

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert spawn_process(["/bin/true"], {}, kept=[], output=2).wait(20) == 0
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_no_signal_is_blocked():
    """Whatever its parent has to wait with."""
    read_fd, write_fd = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        argv = ["/bin/grep", "SigBlk", "/proc/self/status"]
        child = spawn_process(argv, {}, kept=[], output=write_fd)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.close(write_fd)
    with os.fdopen(read_fd) as pipe:
        assert int(pipe.read().split()[1], 16) == 0
    assert child.wait(10) == 0


def test_what_python_ignores_is_not_ignored():
    """A command that writes to a closed pipe ends of that."""
    read_fd, write_fd = os.pipe()
    script = "grep SigIgn /proc/self/status"
    child = spawn_process(["/bin/sh", "-c", script], dict(os.environ), kept=[], output=write_fd)
    os.close(write_fd)
    with os.fdopen(read_fd) as pipe:
        ignored = int(pipe.read().split()[1], 16)
    assert child.wait(10) == 0
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert signal.getsignal(number) is signal.SIG_IGN
        assert not ignored >> (number - 1) & 1


def test_a_command_that_is_not_there_leaves_nothing_open():
    """Neither a process nor an inheritable descriptor."""
    kept = os.memfd_create("kept")
    try:
        with pytest.raises(FileNotFoundError):
            spawn_process(["/nonexistent"], {}, kept=[kept], output=2)
        assert not os.get_inheritable(kept)
    finally:
        os.close(kept)


def test_its_end_is_told_as_often_as_one_asks():
    """A code, a signal as a negative number; a bound that passes is an error, and the process lives on."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        done = spawn_process(["/bin/sh", "-c", "exit 7"], {}, kept=[], output=null)
        sleeper = spawn_process(["/bin/sleep", "600"], {}, kept=[], output=null)
    finally:
        os.close(null)
    assert (done.wait(10), done.wait(10), done.poll()) == (7, 7, 7)
    done.send_signal(signal.SIGKILL)  # its pid may be somebody else's by now
    assert sleeper.poll() is None
    with pytest.raises(TimeoutError):
        sleeper.wait(0.01)
    sleeper.end(0.01)
    assert sleeper.returncode == -signal.SIGKILL
