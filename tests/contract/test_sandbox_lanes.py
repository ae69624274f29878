"""Sandboxes that live at the same time: each has its own user, and nothing of one reaches another."""

from __future__ import annotations

import os
import signal

import pytest

from sandbox.base import Network
from sandbox.errors import SandboxBrokenError
from sandbox.filesystem.landlock import kernel_abi, scoped
from sandbox.filesystem.lanes import JOB_UIDS, Lanes
from sandbox.process_tree import users_of_others
from tests.contract.deviations import BWRAP, PLAIN
from tests.contract.sandbox_backends import FILESYSTEM_BACKENDS, open_place, read_until

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has users to give")
SCOPED = pytest.mark.skipif(not scoped(kernel_abi()), reason="this kernel has no scopes")
PYTHON = "/usr/bin/python3"
RECEIVER = """
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind("\\0" + sys.argv[1])
server.listen()
print("up", flush=True)
peer, _ = server.accept()
_, fds, _, _ = socket.recv_fds(peer, 16, 4)
peer.sendall(b"held")
peer.recv(1)  # the end of the sender
print("held", len(fds), flush=True)
import time
while not os.path.exists(os.path.join(os.environ["HOME"], "now")):
    time.sleep(0.01)

def attempt(name, act):
    try:
        print(name, "did", act())
    except OSError as error:
        print(name, error.strerror)

for fd in fds:
    attempt("openat", lambda: os.open("secret", os.O_RDONLY, dir_fd=fd))
    attempt("again", lambda: os.open(".", os.O_RDONLY, dir_fd=fd))
    attempt("create", lambda: os.open("planted", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    attempt("stat", lambda: os.stat("secret", dir_fd=fd))
    attempt("fchdir", lambda: os.fchdir(fd))
    attempt("magic", lambda: os.listdir(f"/proc/self/fd/{fd}/"))
    attempt("fchmod", lambda: os.fchmod(fd, 0o777))
    attempt("utime", lambda: os.utime(fd))
    attempt("xattr", lambda: os.setxattr(fd, "user.planted", b"x"))
print("end", flush=True)
"""
SENDER = """
import os, socket, sys
fds = [os.open(os.environ[name], flags) for name in ("HOME", "TMPDIR")
       for flags in (os.O_RDONLY, os.O_PATH)]
peer = socket.socket(socket.AF_UNIX)
peer.connect("\\0" + sys.argv[1])
socket.send_fds(peer, [b"x"], fds)
print(peer.recv(4).decode(), flush=True)
"""


@pytest.fixture(params=FILESYSTEM_BACKENDS)
async def real(request, reachable_dir):
    """Every backend that runs processes."""
    async for each in open_place(request, reachable_dir):
        yield each


@pytest.fixture(params=(BWRAP,))
async def walled(request, reachable_dir):
    """The backend with walls in which unix sockets can be made."""
    async for each in open_place(request, reachable_dir):
        yield each


@pytest.fixture(params=(PLAIN,))
async def open_(request, reachable_dir):
    """The backend on which descriptors can be handed on."""
    async for each in open_place(request, reachable_dir):
        yield each


OWN_UIDS = JOB_UIDS[-20:]
"""The lowest that is free is taken, so nobody else comes as far as these."""


def owner(place, sandbox) -> int:
    """Return whose the folders of a sandbox are."""
    return (place.root / sandbox.base_env["RUNNER_SANDBOX"] / "home").stat().st_uid


@pytest.fixture(params=FILESYSTEM_BACKENDS)
async def alone(request, reachable_dir):
    """Every backend that runs processes, with users that no other test takes at the same time."""
    async for each in open_place(request, reachable_dir, OWN_UIDS):
        yield each


@AS_ROOT
async def test_sandboxes_that_live_at_once_have_different_users(alone):
    """Each has the lowest user that is free; a destroyed one's is free again."""
    others = [await alone.another() for _ in range(4)]
    uids = [owner(alone, each) for each in (alone.sandbox, *others)]
    assert uids == list(OWN_UIDS[:5])
    for sandbox, uid in zip(others, uids[1:], strict=True):
        output, _ = await alone.run("touch $HOME/f; cat /proc/self/uid_map", sandbox=sandbox)
        home = alone.root / sandbox.base_env["RUNNER_SANDBOX"] / "home"
        assert ((home / "f").stat().st_uid, (home / "f").stat().st_gid) == (uid, uid), output
    await others[2].destroy()
    await others[0].destroy()
    again = [owner(alone, await alone.another()) for _ in range(3)]
    assert again == [uids[1], uids[3], OWN_UIDS[5]]


@AS_ROOT
async def test_jobs_cannot_signal_trace_or_limit_each_other(real):
    """Not even without any wall: their users differ."""
    other = await real.another()
    victim = await real.start("echo up; exec sleep 4713", sandbox=other)
    await read_until(victim.stream(), b"up")
    pid = max(process.pid for process in await victim.processes())
    output, _ = await real.run(
        f"kill -9 {pid}; prlimit --pid {pid} --nofile=1; cat /proc/{pid}/mem; ls /proc/{pid}/cwd/"
    )
    assert any(process.pid == pid for process in await victim.processes()), output
    await victim.kill()
    assert (await victim.wait()).signal == signal.SIGKILL


@SCOPED
async def test_no_descriptor_reaches_another_sandbox(walled):
    """Abstract sockets are the only ones that two sandboxes could both name: none can be connected to."""
    name = f"runner-test-{os.getpid()}-{walled.backend}"
    receiver = await walled.start(PYTHON, "-c", RECEIVER, name)
    await read_until(receiver.stream(), b"up")
    other = await walled.another()
    output, result = await walled.run(PYTHON, "-c", SENDER, name, sandbox=other)
    assert (result.exit_code, b"PermissionError" in output) == (1, True), output
    await receiver.kill()


@SCOPED
async def test_abstract_sockets_of_one_sandbox_work(walled):
    """A job talks to itself as before, from one command to its own children."""
    name = f"runner-own-{os.getpid()}-{walled.backend}"
    script = (
        "import socket, subprocess, sys\n"
        f"server = socket.socket(socket.AF_UNIX); server.bind('\\0{name}'); server.listen()\n"
        "code = \"import socket; socket.socket(socket.AF_UNIX).connect('\\\\0%s')\" % sys.argv[1]\n"
        "sys.exit(subprocess.call([sys.executable, '-c', code]))\n"
    )
    output, result = await walled.run(PYTHON, "-c", script, name)
    assert result.exit_code == 0, output


@pytest.fixture(params=("landlock",))
async def socketless(request, reachable_dir):
    """The backend in which none can be made: no rule keeps those of others from being reached by a path."""
    async for each in open_place(request, reachable_dir):
        yield each


async def test_no_unix_socket_can_be_made_where_no_rule_covers_them(socketless):
    """Pairs of sockets work: they have no name that anybody could connect to."""
    script = (
        "import socket\n"
        "socket.socketpair()\n"
        "socket.socket(socket.AF_INET)\n"
        "print('made', flush=True)\n"
        "socket.socket(socket.AF_UNIX)\n"
    )
    output, result = await socketless.run(PYTHON, "-c", script)
    assert result.exit_code == 1
    assert output.startswith(b"made\n")
    assert output.endswith(b"OSError: [Errno 97] Address family not supported by protocol\n")


@AS_ROOT
async def test_a_kept_descriptor_opens_nothing_of_the_next_sandbox(open_):
    """Where a folder can be handed on, its next user's files stay closed to who holds it."""
    name = f"runner-test-{os.getpid()}-kept"
    receiver = await open_.start(PYTHON, "-c", RECEIVER, name)
    stream = receiver.stream()
    await read_until(stream, b"up")
    sender = await open_.another()
    output, _ = await open_.run(PYTHON, "-c", SENDER, name, sandbox=sender)
    assert output == b"held\n"
    inodes = folder_inodes(open_, sender)
    await sender.destroy()
    await read_until(stream, b"held 4")
    successor = await open_.another(network=Network.ON)
    assert folder_inodes(open_, successor) == inodes, "the folders were to be used again"
    await open_.run("echo x >$HOME/secret; echo x >$TMPDIR/secret", sandbox=successor)
    (open_.workspace / "home" / "now").touch()
    said = await read_until(stream, b"end")
    await receiver.kill()
    assert b" did " not in said.replace(b"held 4", b""), said
    assert (
        said.count(b"Permission denied")
        + said.count(b"Operation not permitted")
        + said.count(b"Bad file descriptor")
        == 9 * 4
    ), said


def folder_inodes(place, sandbox) -> list[int]:
    """Return which folders a sandbox has."""
    top = place.root / sandbox.base_env["RUNNER_SANDBOX"]
    return [(top / name).stat().st_ino for name in ("home", "tmp")]


async def test_a_user_that_has_processes_at_the_start_is_not_handed_out(reachable_dir):
    """A leftover that hid from the search for leftovers meets no new sandbox of its user."""
    assert os.getuid() in users_of_others() or os.getppid() == 0
    lanes = Lanes(reachable_dir, range(7, 10))
    lanes.avoid(frozenset({7, 9}))
    assert lanes.take().uid == 8
    with pytest.raises(SandboxBrokenError):
        lanes.take()
    lanes.close()


async def test_two_runners_of_root_never_share_a_user(reachable_dir):
    """Each reserves the users that it hands out; what one gives up at its end the other may have."""
    one, other = (Lanes(reachable_dir, range(7, 10)) for _ in range(2))
    assert [one.take().uid, other.take().uid, one.take().uid] == [7, 8, 9]
    with pytest.raises(SandboxBrokenError):
        other.take()
    one.close()
    third = Lanes(reachable_dir, range(7, 10))
    assert [third.take().uid, third.take().uid] == [7, 9]
    third.close()
    other.close()


async def test_a_retired_user_is_not_handed_out_again(reachable_dir):
    """And when all are retired or taken, there is no sandbox."""
    lanes = Lanes(reachable_dir, range(7, 10))
    first, second, third = (lanes.take() for _ in range(3))
    assert [lane.uid for lane in (first, second, third)] == [7, 8, 9]
    lanes.retire(second)
    lanes.give_back(third)
    lanes.give_back(first)
    assert [lanes.take().uid, lanes.take().uid] == [7, 9]
    with pytest.raises(SandboxBrokenError, match="7 to 9"):
        lanes.take()
    lanes.close()
