"""Commands that a helper spawns are as those that are spawned by vfork, whatever becomes of the helper."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.filesystem.call_list import CallList, Step, failed_step
from sandbox.filesystem.spawner import MOST_BYTES, MOST_FDS, Spawner
from tests.unit.sandbox.filesystem.spawned import helper_of, listed, run
from tests.waiting import wait_until

SECRET = "canary-5b1e7a-heron"


def test_a_command_is_a_child_of_this_process_in_a_session_of_its_own(made: Spawner) -> None:
    """With nothing open but its three, nothing of the environment, and no signal ignored or blocked."""
    helper = helper_of(made)
    script = "echo $$ $PPID; cut -d' ' -f4-6 /proc/$$/stat; ls /proc/$$/fd; export -p"
    status, output = run(made, script, lambda calls: calls.close_all_but(()))
    lines = output.decode().split("\n")
    pid, parent = lines[0].split()
    assert (status, int(parent)) == (0, os.getpid())
    assert int(pid) != helper
    assert lines[1].split() == [str(os.getpid()), pid, pid]
    assert lines[2:5] == ["0", "1", "2"]
    assert [line for line in lines[5:] if line and "PWD" not in line] == []
    _, output = run(made, "exec grep -E '^Sig(Blk|Ign)' /proc/self/status")
    masks = [int(line.split()[1], 16) for line in output.splitlines()]
    ordinary = sum(1 << (number - 1) for number in signal.valid_signals())
    assert [mask & ordinary for mask in masks] == [0, 0]


@pytest.mark.parametrize("kept", [(4,), (5, 6), (6, 5), (5, 7, 6), (9, 4, 8, 5), (30, 31)])
def test_descriptors_are_kept_under_their_numbers(made: Spawner, kept: tuple[int, ...]) -> None:
    """Also under those which the helper gets them under, in any order."""
    helper_of(made)
    # The numbers of this process are taken by others, so a process of its own has the files under these.
    files = [os.memfd_create(f"file {number}") for number in kept]
    high = [os.dup2(fd, 200 + place) for place, fd in enumerate(files)]
    saved = {number: os.dup(number) for number in kept if _is_open(number)}
    script = " ".join(f"readlink /proc/$$/fd/{number};" for number in kept)
    try:
        for fd, number in zip(high, kept, strict=True):
            os.dup2(fd, number)
        calls = listed(made, script)
        read_fd, write_fd = os.pipe()
        assert {read_fd, write_fd}.isdisjoint(kept)
        pid = made.spawn(calls, output_fd=write_fd, kept=kept)
    finally:
        for number in kept:
            os.close(number)
        for number, fd in saved.items():
            os.dup2(fd, number)
            os.close(fd)
        for fd in {*files, *high} - set(kept):
            os.close(fd)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        output = pipe.read().decode()
    os.waitpid(pid, 0)
    assert output.splitlines() == [f"/memfd:file {number} (deleted)" for number in kept]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_step_that_fails_is_told(made: Spawner) -> None:
    """As by the trampoline itself; the helper goes on."""
    helper = helper_of(made)
    _, output = run(made, "echo reached", lambda calls: calls.change_directory("/nowhere"))
    failed = failed_step(output)
    assert failed is not None
    assert failed[0] is Step.DIRECTORY
    assert helper_of(made) == helper


@pytest.mark.parametrize("length", [MOST_BYTES - 5_000, MOST_BYTES + 1, 1_000_000])
def test_a_list_of_any_length(made: Spawner, length: int) -> None:
    """The helper has room for most; the longest are spawned by vfork. (One variable may have 128 KiB.)"""
    helper_of(made)
    each = 50_000
    env: dict[str, str] = {}
    while length > 0:
        env[f"V{len(env)}"] = "x" * min(each, length)
        length -= each
    status, output = run(made, "export -p | wc -c", env=env)
    assert status == 0
    assert int(output) >= sum(map(len, env.values()))


def test_more_descriptors_than_a_message_takes(made: Spawner) -> None:
    """They are spawned by vfork."""
    helper_of(made)
    null = os.open(os.devnull, os.O_RDONLY)
    kept = [os.dup(null) for _ in range(MOST_FDS + 5)]
    try:
        status, output = run(made, "ls /proc/$$/fd", kept=kept)
    finally:
        for fd in (null, *kept):
            os.close(fd)
    assert status == 0
    assert {*map(int, output.split())} >= {*kept}


def test_nothing_of_a_command_stays_in_the_helper(made: Spawner) -> None:
    """No variable and no descriptor, as soon as it has told the pid."""
    calls = listed(made, "true", env={"TOKEN": SECRET})
    read_fd, write_fd = os.pipe()
    pid = made.spawn(calls, output_fd=write_fd, kept=(read_fd,))
    os.close(read_fd)
    os.close(write_fd)
    os.waitpid(pid, 0)
    assert made._helper is not None
    helper = made._helper.pid
    own = ["0", "1", "2", "3"]
    wait_until(lambda: sorted(os.listdir(f"/proc/{helper}/fd")) == own, 10)
    wait_until(lambda: SECRET.encode() not in memory_of(helper), 10)
    assert Path(f"/proc/{helper}/environ").read_bytes() == b""


def memory_of(pid: int) -> bytes:
    """Return what a process has in its memory, but for what the kernel shows of itself there."""
    found = b""
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            first, last = (int(word, 16) for word in line.split()[0].split("-"))
            if "[v" not in line:
                memory.seek(first)
                found += memory.read(last - first)
    assert b"launch: " in found
    return found


AS_NOBODY = """
import os, sys
from sandbox import process_tree
from sandbox.filesystem.call_list import CallList
from sandbox.filesystem.spawner import Spawner
from sandbox.filesystem.trampoline import Trampoline
from sandbox.process import libc
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, which the helper inherits
spawner = Spawner(Trampoline())
for _ in range(2):
    calls = CallList(spawner.machine)
    calls.empty_stdin()
    calls.execute(["/bin/true"], {})
    os.waitpid(spawner.spawn(calls, output_fd=2), 0)
helper = spawner._helper.pid
for name in ("mem", "fd", "environ", "maps"):
    try:
        os.open(f"/proc/{helper}/{name}", os.O_RDONLY)
    except PermissionError:
        print(name)
print(process_tree.reap_zombies())
"""


def test_nobody_but_root_looks_into_it_or_takes_it_for_an_orphan() -> None:
    """Not the user whose it is, who may be that of the jobs; also where it is in all as their orphans are."""
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY], capture_output=True, check=True, text=True
    )
    assert done.stdout.split() == ["mem", "fd", "environ", "maps", "False"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root looks into it")
def test_a_command_has_nothing_of_the_helper(made: Spawner) -> None:
    """Neither its line nor its list, from the first step of its own on."""
    helper_of(made)
    ready, go = os.pipe()
    calls = CallList(made.machine)
    byte = calls.data(b"x")
    calls.must(Step.RIGHTS, "read", ready, byte, 1)
    calls.must(Step.PROGRAM, "exit_group", 0)
    pid = made.spawn(calls, output_fd=go, kept=(ready,))
    reads = str(made.machine.calls["read"])
    try:
        wait_until(lambda: Path(f"/proc/{pid}/syscall").read_text().split()[0] == reads, 10)
        files = {
            int(name): os.readlink(f"/proc/{pid}/fd/{name}")
            for name in os.listdir(f"/proc/{pid}/fd")
        }
        pipe = os.readlink(f"/proc/self/fd/{go}")
        assert {0, 1, 2, ready} <= files.keys()
        assert {*files.values()} == {pipe}
    finally:
        os.write(go, b"x")
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(go)


def test_limits_are_inherited(made: Spawner) -> None:
    """Those of this process when the helper began."""
    helper_of(made)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert run(made, "ulimit -n") == (0, f"{soft}\n".encode())
