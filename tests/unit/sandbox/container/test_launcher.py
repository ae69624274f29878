"""The script that becomes the command, under every shell that is here: it needs no engine to be tried."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sandbox.base import ExecRequest
from sandbox.container import launcher

SHELLS = [
    pytest.param(
        words,
        id=words[-1].rpartition("/")[2],
        marks=pytest.mark.skipif(shutil.which(words[0]) is None, reason=f"no {words[0]}"),
    )
    for words in (["dash"], ["bash", "--posix"], ["busybox", "sh"])
]
MARKER = "end-of-it"
END_MARK = "\x1etold-by-itself"


@pytest.fixture(params=SHELLS)
def shell(request) -> list[str]:
    """The words that start a shell."""
    return request.param


def start(
    shell: list[str], *argv: str, env: dict[str, str], cwd: str = "/"
) -> subprocess.Popen[bytes]:
    """Start the launcher as an engine does: the environment over stdin, both outputs apart."""
    _, *rest = launcher.words(MARKER)
    child = subprocess.Popen(
        [*shell, *rest],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"FROM_IMAGE": "1", "PATH": "/usr/bin:/bin", "s": "image", "HOSTNAME": "x"},
    )
    assert child.stdin is not None
    request = ExecRequest(argv=argv, env={}, cwd=cwd)
    unset = {"FROM_IMAGE": "1", "s": "image"}
    child.stdin.write(launcher.call(request, env, unset, MARKER, END_MARK))
    child.stdin.flush()
    return child


def run(
    shell: list[str], *argv: str, env: dict[str, str] | None = None, cwd: str = "/"
) -> tuple[int, bytes, bytes]:
    """Return status, output and what the launcher said."""
    child = start(shell, *argv, env={"PATH": "/usr/bin:/bin", **(env or {})}, cwd=cwd)
    output, said = child.communicate(timeout=20)
    return child.returncode, output, said


def test_the_environment_is_exact(shell):
    """What the job asks for is there, byte for byte, and what image, engine and shell add is gone."""
    odd = "'\"$HOME`id`\\\n\n*; exit 3 \udcff'"
    env = {"ODD": odd, "IFS": "/", "t": "1", "f": "", "ENV": "/none", "PS4": "$(id)"}
    status, output, said = run(shell, "env", "-0", env=env)
    seen = dict(part.split(b"=", 1) for part in output.split(b"\0")[:-1])
    for added in (
        b"_",
        b"PWD",
        b"SHLVL",
        b"OLDPWD",
    ):  # by bash, right before it becomes the command
        seen.pop(added, None)
    wanted = {"PATH": "/usr/bin:/bin", **env}
    assert seen == {os.fsencode(name): os.fsencode(value) for name, value in wanted.items()}
    assert (status, said) == (0, launcher.STARTED)


def test_both_outputs_are_one_and_stdin_is_empty(shell):
    """The order of writing is kept; nothing of the command is on the launcher's own channel."""
    script = "cat; for i in 1 2 3; do echo o$i; echo e$i >&2; done; ls /proc/self/fd | wc -l"
    status, output, said = run(shell, "sh", "-c", script)
    assert (status, output, said) == (0, b"o1\ne1\no2\ne2\no3\ne3\n4\n", launcher.STARTED)


@pytest.mark.parametrize("code", [0, 1, 125, 126, 127, 255])
def test_the_exit_code_is_passed_on(shell, code):
    """Whatever it is: that the command began is said on another channel."""
    assert run(shell, "sh", "-c", f"exit {code}")[::2] == (code, launcher.STARTED)


def test_what_cannot_be_executed(shell, tmp_path):
    """Missing is 127, not executable and a folder are 126, each with a line that names it."""
    (tmp_path / "plain").write_text("x")
    (tmp_path / "plain").chmod(0o644)
    none, denied = "No such file or directory", "Permission denied"
    for name, code, why in (
        ("no-such-program", 127, none),
        ("/no/such", 127, none),
        ("/usr", 126, denied),
        (str(tmp_path / "plain"), 126, denied),
        ("-n", 127, none),
        ("(", 127, none),
    ):
        status, output, said = run(shell, name, "x")
        assert (status, said) == (code, launcher.STARTED)
        assert output == f"runner: cannot execute {name}: {why}\n".encode()


def test_a_working_directory_that_cannot_be_used(shell):
    """The launcher says so on its own channel, and nothing was started."""
    status, output, said = run(shell, "true", cwd="/no/such")
    assert (status, output) == (125, b"")
    assert said == b"the working directory /no/such cannot be used\n"


def test_builtins_are_looked_up_like_every_program(shell):
    """A command named like a word of the shell is the program, with its words as they are."""
    assert run(shell, "printf", "%s|", "a b", "*", "$HOME")[1] == b"a b|*|$HOME|"


def test_signals_of_the_command_are_its_own(shell):
    """INT and TERM do what they do by default; the launcher passes the death on as 128 + N."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        status, _, _ = run(shell, "sh", "-c", f"kill -{int(number)} $$")
        assert status in {128 + number, -number}


def test_the_launcher_survives_term(shell):
    """TERM for everybody leaves the launcher, which waits for the command's own end."""
    child = start(
        shell,
        "sh",
        "-c",
        "trap 'sleep 0.2; exit 7' TERM; echo up; while :; do sleep 0.02; done",
        env={"PATH": "/usr/bin:/bin"},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    child.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    assert child.poll() is None
    below = subprocess.check_output(["ps", "--ppid", str(child.pid), "-o", "pid="]).split()
    for pid in below:
        os.kill(int(pid), signal.SIGTERM)
    child.communicate(timeout=20)
    assert child.returncode == 7


def test_who_is_to_be_stopped_is_there_when_the_start_is_told(shell):
    """Else a TERM that follows would reach nobody, and the command would run on."""
    child = start(shell, "sleep", "60", env={"PATH": "/usr/bin:/bin"})
    assert child.stderr is not None
    assert child.stderr.readline() == launcher.STARTED
    below = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    for pid in below:
        os.kill(int(pid), signal.SIGTERM)
    assert below
    child.communicate(timeout=20)
    assert child.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("name", ["a-b", "1a", "a b", "a.b", "é", "a;id"])
def test_a_name_that_no_shell_takes(name):
    """It is refused by name, before anything is started."""
    request = ExecRequest(argv=("true",), env={}, cwd="/")
    with pytest.raises(ValueError, match="name of a variable"):
        launcher.call(request, {name: "x"}, {}, MARKER, END_MARK)


def test_an_input_that_breaks_off_starts_nothing(shell):
    """A half of an environment, or of a command, is none."""
    request = ExecRequest(argv=("echo", "ran"), env={}, cwd="/")
    whole = launcher.call(request, {"PATH": "/usr/bin:/bin"}, {}, MARKER, END_MARK)
    _, *rest = launcher.words(MARKER)
    for length in (0, whole.index(MARKER.encode()) - 5, len(whole) - 8):
        done = subprocess.run(
            [*shell, *rest], input=whole[:length], capture_output=True, timeout=20, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (125, b"", b"")


def test_a_command_goes_first_where_memory_is_short(shell):
    """The kernel takes it before the launcher, which lives to tell."""
    _, output, _ = run(shell, "cat", "/proc/self/oom_score_adj")
    assert output == b"700\n"
