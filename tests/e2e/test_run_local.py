"""`runner run-local`: no daemon, the same executor and sandbox, the command's own exit code."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import termios
from typing import IO

import psutil
import pytest

from tests.e2e.instance import Instance
from tests.waiting import wait_until


def test_prints_the_output_and_returns_the_exit_code(instance: Instance) -> None:
    """Quiet prints the job's output and nothing else."""
    path = instance.job_file("job_command: 'echo out; echo err >&2; exit 5'\n")
    done = instance.run("run-local", "--quiet", "--file", path)
    assert (done.returncode, done.stdout, done.stderr) == (5, b"out\nerr\n", b"")
    done = instance.run("run-local", "--file", path)
    assert done.stdout == b"out\nerr\n"
    assert b"sandbox: filesystem/" in done.stderr
    assert b"exit code 5" in done.stderr


def test_a_list_is_an_argument_vector(instance: Instance) -> None:
    """Words of a list reach the program as they are, without a shell."""
    path = instance.job_file("job_command: [printf, '%s|', 'a b', '$HOME', '']\n")
    assert instance.run("run-local", "-q", "--file", path).stdout == b"a b|$HOME||"


def test_json_and_standard_input(instance: Instance) -> None:
    """A job file may be JSON and may come by a pipe."""
    done = instance.run(
        "run-local",
        "-q",
        "--file",
        "-",
        stdin=b'{"job_command": "echo $RUNNER_JOB_NAME", "name": "n"}',
    )
    assert (done.returncode, done.stdout) == (0, b"n\n")


def test_secrets_come_from_the_environment_and_are_masked(instance: Instance) -> None:
    """Raw, split over two writes, and never in the environment unless asked for."""
    value = "tok-" + "q" * 20
    instance.extra_env["NPM_TOKEN"] = value
    path = instance.job_file(
        "job_command: |\n"
        "  echo $T\n"
        '  printf %s "${T%??????????}"; sleep 0.2; printf \'%s\\n\' "${T#??????????????}"\n'
        "  env | grep -c NPM_TOKEN\n"
        "env: {T: '${secret:local:NPM_TOKEN}'}\n"
    )
    done = instance.run("run-local", "--file", path)
    assert done.stdout == b"***\n***\n0\n"
    assert value.encode() not in done.stderr
    assert instance.files_with(value.encode()) == []
    del instance.extra_env["NPM_TOKEN"]
    assert "NPM_TOKEN" in instance.fails("run-local", "--no-input", "--file", path, code=8)


def test_a_copied_source_is_at_code_dir(instance: Instance) -> None:
    """source_type: copy puts the folder at /job/src, where the command starts; the original is not touched."""
    source = instance.root / "project"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_text("content")
    (source / "link").symlink_to("/etc/hostname")
    path = instance.job_file(
        "job_command: 'cat sub/file; echo x > sub/file; test -L link; echo; basename $PWD'\n"
        "source_type: copy\nsource_path: project\n"
    )
    done = instance.run("run-local", "-q", "--file", path)
    assert (done.returncode, done.stdout) == (0, b"content\nsrc\n"), done.stderr
    assert (source / "sub" / "file").read_text() == "content"
    path = instance.job_file("job_command: 'true'\nsource_type: copy\nsource_path: nowhere\n")
    assert "nowhere" in instance.fails("run-local", "--file", path, code=125)


@pytest.mark.parametrize(
    ("command", "code"), [("kill -9 $$", 137), ("no-such-program", 127), ("exit 200", 200)]
)
def test_ends_as_a_shell_would_say(instance: Instance, command: str, code: int) -> None:
    """Signals, missing programs and odd codes."""
    path = instance.job_file(f"job_command: '{command}'\n")
    assert instance.run("run-local", "-q", "--file", path).returncode == code


@pytest.mark.parametrize("tier", ["bwrap", "landlock"])
def test_a_program_that_is_not_there(instance: Instance, tier: str) -> None:
    """A list is executed without a shell, and ends as a shell would say, on either tier."""
    instance.extra_env["RUNNER_SANDBOX_TIER"] = tier
    path = instance.job_file("job_command: [no-such-program, x]\n")
    done = instance.run("run-local", "-q", "--file", path)
    assert done.returncode == 127
    assert b"no-such-program" in done.stdout


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cancels_the_job(instance: Instance, sign: signal.Signals) -> None:
    """The command may clean up; the exit code says cancelled; nothing is left."""
    path = instance.job_file(
        "job_command: \"trap 'echo bye; exit 1' TERM; echo up; sleep 100 & wait\"\n"
    )
    with instance.popen("run-local", "-q", "--file", path, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        running.send_signal(sign)
        assert b"bye\n" in running.stdout.read()
        assert running.wait(20) == 130


def wait_full(pipe: IO[bytes]) -> None:
    """Wait until a pipe that nobody reads is about full; how full it can get depends on the writes (pipe(7))."""
    room = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)

    def full() -> bool:
        held = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
        return int.from_bytes(held, "little") > room // 2

    wait_until(full, 20, "the pipe is full")


def running_with(word: str) -> list[psutil.Process]:
    """Return the processes with a word in their command that are no interpreter of ours."""
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if ["yes", word] == process.info["cmdline"]]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_is_stopped_while_nobody_reads(instance: Instance, sign: signal.Signals) -> None:
    """A reader that does not read holds the job up, never the end."""
    word = f"stopped-{os.getpid()}-{sign}"
    path = instance.job_file(f"job_command: [yes, {word}]\n")
    with instance.popen("run-local", "-q", "--file", path, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        wait_full(running.stdout)
        assert running_with(word)
        running.send_signal(sign)
        assert running.wait(20) == 130
        assert not running_with(word)


def test_a_time_out_fires_while_nobody_reads(instance: Instance) -> None:
    """The job is gone although its reader has read nothing; all that was printed before is still delivered."""
    word = f"timeout-{os.getpid()}"
    path = instance.job_file(f"job_command: [yes, {word}]\ntimeout_seconds: 4\n")
    with instance.popen("run-local", "-q", "--file", path, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        wait_full(running.stdout)
        wait_until(lambda: not running_with(word), 20, "the job has ended")
        assert running.poll() is None
        line = f"{word}\n".encode()
        out = running.stdout.read()
        assert len(out) > 1 << 16
        assert out == (line * (len(out) // len(line) + 1))[: len(out)]
        assert running.wait(20) == 124


def test_everything_is_delivered_to_a_late_reader(instance: Instance) -> None:
    """What was printed is there to its last byte, whoever ended first."""
    path = instance.job_file("job_command: 'head -c 900000 /dev/zero; echo end'\n")
    with instance.popen("run-local", "-q", "--file", path, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        wait_full(running.stdout)
        assert running.stdout.read() == bytes(900_000) + b"end\n"
        assert running.wait(20) == 0


def test_a_reader_that_leaves_ends_the_job(instance: Instance) -> None:
    """As with `runner run-local | head`: the job is cancelled, and the exit code is that of a broken pipe."""
    word = f"broken-{os.getpid()}"
    path = instance.job_file(f"job_command: [yes, {word}]\n")
    with instance.popen(
        "run-local", "-q", "--file", path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == f"{word}\n".encode()
        running.stdout.close()
        assert running.wait(20) == 141
        assert running.stderr.read() == b""
    assert not running_with(word)


def test_a_job_that_demands_more_than_there_is(instance: Instance) -> None:
    """A tier that the operator capped away cannot be demanded; nothing runs instead."""
    instance.extra_env["RUNNER_SANDBOX_TIER"] = "landlock"
    path = instance.job_file("job_command: 'echo ran'\nsandbox: {min: bwrap}\n")
    done = instance.run("run-local", "-q", "--file", path)
    assert done.returncode == 125
    assert done.stdout == b""
    assert b"bwrap" in done.stderr
    instance.extra_env["RUNNER_SANDBOX_TIER"] = "plain"
    path = instance.job_file("job_command: 'echo ran'\n")
    assert instance.run("run-local", "-q", "--file", path).returncode == 125
