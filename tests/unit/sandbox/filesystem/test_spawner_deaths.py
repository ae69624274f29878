"""What becomes of commands when the helper that spawns them dies, stands still or is cut off, and when its thread ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from sandbox import procfs
from sandbox.filesystem import rights, spawner
from sandbox.filesystem.spawner import Spawner
from tests.contract.sandbox_backends import any_alive
from tests.unit.sandbox.filesystem.spawned import helper_of, listed, run
from tests.waiting import wait_until


def stop(helper: int) -> None:
    """Have the helper stand still, which it may do a moment after the signal."""
    os.kill(helper, signal.SIGSTOP)
    os.waitid(os.P_PID, helper, os.WSTOPPED)


@pytest.fixture
def on_alarm() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Have something called in a moment, in the middle of whatever this thread does then."""
    before = signal.getsignal(signal.SIGALRM)

    def arm(call: Callable[[], None]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: call())
        signal.setitimer(signal.ITIMER_REAL, 0.2)

    yield arm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_helper_that_dies_is_replaced_and_not_for_ever(made: Spawner) -> None:
    """Commands run on; after three deaths each is spawned by vfork."""
    seen = set()
    for _ in range(3):
        helper = helper_of(made)
        seen.add(helper)
        os.kill(helper, signal.SIGKILL)
        os.waitid(os.P_PID, helper, os.WEXITED | os.WNOWAIT)
        assert run(made, "exit 5") == (5, b"")
    assert len(seen) == 3
    assert run(made, "exit 6") == (6, b"")
    assert made._helper is None


def test_a_helper_that_does_not_answer_is_given_up(
    made: Spawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That command fails, for nobody knows whether it is there; the next one runs."""
    monkeypatch.setattr(spawner, "_ANSWER_S", 1)
    helper = helper_of(made)
    stop(helper)
    with pytest.raises(OSError, match="does not answer"):
        run(made, "exit 7")
    assert procfs.read_stat(helper) is None
    assert run(made, "exit 8") == (8, b"")


def test_a_helper_that_dies_before_it_has_heard(
    made: Spawner, on_alarm: Callable[[Callable[[], None]], None]
) -> None:
    """The command is spawned by vfork."""
    helper = helper_of(made)
    stop(helper)
    on_alarm(lambda: os.kill(helper, signal.SIGKILL))
    assert run(made, "exit 9") == (9, b"")
    assert made._deaths == 1


def test_an_interrupted_spawn_leaves_no_answer_to_the_next_one(
    made: Spawner, on_alarm: Callable[[Callable[[], None]], None]
) -> None:
    """Nor a command that nobody knows of, though the helper had told of it."""
    helper = helper_of(made)
    line = made._helper._socket if made._helper is not None else None
    assert line is not None

    def interrupt() -> None:
        os.kill(helper, signal.SIGCONT)
        assert select.select([line], [], [], 10)[0] == [line]
        raise KeyboardInterrupt

    stop(helper)
    on_alarm(interrupt)
    null = os.open(os.devnull, os.O_WRONLY)
    before = procfs.own_children() - {helper}
    with pytest.raises(KeyboardInterrupt):
        made.spawn(listed(made, "exec sleep 1000"), output_fd=null)
    os.close(null)
    assert procfs.own_children() <= before
    assert run(made, "echo mine") == (0, b"mine\n")


def test_deaths_are_forgiven_for_good_service(
    made: Spawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper that is killed once a month is replaced every time."""
    monkeypatch.setattr(spawner, "_GOOD_COMMANDS", 1)
    for _ in range(5):
        helper = helper_of(made)
        os.kill(helper, signal.SIGKILL)
        os.waitid(os.P_PID, helper, os.WEXITED | os.WNOWAIT)
        assert run(made, "exit 5") == (5, b"")
    assert made._deaths == 1


def test_another_thread_does_not_tie_its_commands_to_the_first(made: Spawner) -> None:
    """A command that dies with the thread that began it dies with its own."""
    helper_of(made)
    found: list[int] = []

    def work() -> None:
        calls = listed(made, "echo up; exec sleep 1000", rights.die_with_parent)
        read_fd, write_fd = os.pipe()
        found.append(made.spawn(calls, output_fd=write_fd))
        os.close(write_fd)
        assert os.read(read_fd, 3) == b"up\n"
        os.close(read_fd)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(found[0], 0)[1]) == -signal.SIGKILL


LEAVES = """
import os, sys
from sandbox.filesystem import rights
from sandbox.filesystem.spawner import Spawner
from sandbox.filesystem.trampoline import Trampoline
from tests.unit.sandbox.filesystem.spawned import listed
spawner = Spawner(Trampoline())
pids = []
for _ in range(3):
    calls = listed(spawner, "echo up; exec sleep 1000", rights.die_with_parent)
    read_fd, write_fd = os.pipe()
    pids.append(spawner.spawn(calls, output_fd=write_fd))
    os.read(read_fd, 3)
print(*pids, spawner._helper.pid, flush=True)
sys.stdin.read()
"""


def test_everything_dies_with_who_began_it() -> None:
    """The helper and its commands, when this process is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", LEAVES], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        pids = {int(word) for word in process.stdout.readline().split()}
        assert len(pids) == 4
        process.kill()
    wait_until(lambda: not any_alive(pids), 10)
