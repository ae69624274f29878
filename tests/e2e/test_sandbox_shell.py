"""`runner sandbox shell`: a shell where the command of a job would be."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.instance import RUNNER, Instance
from tests.e2e.terminal import Terminal
from tests.waiting import wait_until

SECRET = "tok-" + "q" * 20
JOB = """
name: looked-at
job_command: exit 99
job_dir: /job/src/inner
source_type: copy
source_path: given
env: {T: '${secret:local:NPM_TOKEN}', WORD: plain}
sandbox: {network: 'off'}
"""


@pytest.fixture
def job(instance: Instance) -> str:
    """A job file with a source, a secret and walls."""
    path = instance.job_file(JOB)
    inner = Path(path).parent / "given" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("copied\n")
    instance.extra_env["NPM_TOKEN"] = SECRET
    return path


@pytest.mark.parametrize("tier", ["bwrap", "landlock"])
def test_commands_from_a_pipe(instance: Instance, job: str, tier: str) -> None:
    """With the files, the variables, the secrets and the walls of the job; the exit code is the shell's."""
    instance.extra_env["RUNNER_SANDBOX_TIER"] = tier
    script = (
        b"pwd; cat file; echo $WORD $T ${#T} $RUNNER_JOB_NAME; test -t 0 || echo piped;"
        b" (: >/dev/tcp/127.0.0.1/1) 2>/dev/null || echo alone; exit 7\necho never\n"
    )
    done = instance.run("sandbox", "shell", "--file", job, stdin=script)
    said = done.stdout.decode().splitlines()
    assert done.returncode == 7, done.stderr
    assert said[0].endswith("job/src/inner")
    assert said[1:] == ["copied", f"plain *** {len(SECRET)} looked-at", "piped", "alone"]
    assert f"sandbox: filesystem/{tier}".encode() in done.stderr


def test_the_end_of_the_input_is_the_end_of_the_shell(instance: Instance) -> None:
    """Without a file it is that of a job that says nothing of its sandbox."""
    done = instance.run("sandbox", "shell", stdin=b"cat\nmore\nthan that\n")
    assert (done.returncode, done.stdout) == (0, b"more\nthan that\n")


@pytest.mark.parametrize("tier", ["bwrap", "landlock"])
def test_on_a_terminal(instance: Instance, job: str, tier: str) -> None:
    """Of the size of the person's, also when that changes; keys reach what runs in it; at the end it is as it was."""
    instance.extra_env["RUNNER_SANDBOX_TIER"] = tier
    argv = ("/bin/sh", "-c", f'{RUNNER} sandbox shell --file {job}; echo "left with $?"; stty -a')
    terminal = Terminal(instance, [], "xterm", argv)
    terminal.wait_for("$ ")
    terminal.child.sendline("stty size; echo is $T in $TERM")
    terminal.wait_for("30 140")
    terminal.wait_for(f"is {SECRET} in xterm")
    terminal.resize(31, 120)
    terminal.child.sendline(
        "while [ \"$(stty size)\" != '31 120' ]; do sleep 0.1; done; echo res''ized"
    )
    terminal.wait_for("resized")
    terminal.child.sendline("echo sle''eping; sleep 1000")
    terminal.wait_for("sleeping")
    terminal.child.sendintr()
    terminal.child.sendline("echo interrupted: $?")
    terminal.wait_for("interrupted: 130")
    # More than a terminal holds, to a command that writes more than that before it reads.
    script = "head -c 300000 /dev/zero | tr '\\0' 'x'; head -c 200000 | wc -c"
    terminal.child.sendline(
        f"stty raw -echo; echo un''cooked; {script}; stty sane; echo typed all of it"
    )
    # Not on the screen: what follows may have scrolled it away.
    wait_until(lambda: terminal.pump() and b"uncooked" in terminal.raw, 30, terminal.pump)
    wait_until_taken(terminal, b"y" * 200_000)
    terminal.wait_for("typed all of it")
    terminal.child.sendline("sleep 1000 &")
    terminal.child.sendline("exit 9")
    terminal.wait_for("left with 9")
    terminal.wait_for(" echo ")
    assert terminal.end() == 0


def wait_until_taken(terminal: Terminal, data: bytes) -> None:
    """Type as fast as it is taken, and look meanwhile."""
    fd = terminal.child.child_fd
    os.set_blocking(fd, False)
    view = memoryview(data)

    def all_typed() -> bool:
        nonlocal view
        with contextlib.suppress(BlockingIOError):
            view = view[os.write(fd, view) :]
        terminal.pump()
        return not view

    wait_until(all_typed, 60, terminal.pump)
    os.set_blocking(fd, True)


def test_no_descriptor_but_a_pipe_goes_through(instance: Instance) -> None:
    """A socket on standard input is relayed, not handed over."""
    look = "ls -l /proc/self/fd | grep -c socket:; exit"
    here, there = socket.socketpair()
    with here, there:
        here.send(f"{look}\n".encode())
        here.shutdown(socket.SHUT_WR)
        argv = [RUNNER, "sandbox", "shell"]
        done = subprocess.run(
            argv, stdin=there.fileno(), env=instance.env, capture_output=True, check=False
        )
    assert (done.returncode, done.stdout) == (1, b"0\n")


def test_standard_input_is_not_the_job_file(instance: Instance) -> None:
    """It is what the shell reads."""
    assert "name a job file" in instance.fails("sandbox", "shell", "--file", "-", code=2)
