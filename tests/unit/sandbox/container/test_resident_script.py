"""The script that runs one command after the other, under every shell that is here: it needs no engine to be tried."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.base import ExecRequest
from sandbox.container import launcher
from sandbox.container.end_mark import Ended, EndMark

PATH = "/usr/bin:/bin"
_SCRIPT = launcher.RESIDENT_SCRIPT
NAMESPACE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
"""The script ends whatever runs beside it, which must be nobody else's."""
SHELLS = [
    pytest.param(
        words,
        id=words[0],
        marks=pytest.mark.skipif(shutil.which(words[0]) is None, reason=f"no {words[0]}"),
    )
    for words in (["dash"], ["bash", "--posix"], ["busybox", "sh"])
]


class Resident:
    """One shell that serves."""

    def __init__(self, shell: list[str], counter: Path) -> None:
        """Start it; the kernel counts in ``counter`` whom it has killed for memory."""
        self.counter = counter
        counter.write_text("oom 3\noom_kill 1\n")
        _, *rest = launcher.RESIDENT_SHELL
        self.child = subprocess.Popen(
            [*shell, *rest],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"FROM_IMAGE": "1", "PATH": PATH, "c": "image", "HOSTNAME": "x"},
        )
        script, count = re.subn(r"for f in /sys/\S+ /sys/\S+;", f"for f in {counter};", _SCRIPT)
        assert count == 1
        self.write(script.encode())

    def write(self, data: bytes) -> None:
        """Say something to it."""
        assert self.child.stdin is not None
        self.child.stdin.write(data)
        self.child.stdin.flush()

    def run(self, *argv: str, **env: str) -> tuple[bytes, Ended]:
        """Run a command to its end; return what it printed and how it ended."""
        name = launcher.new_marker()
        request = ExecRequest(argv=argv, env={}, cwd="/")
        variables = {"PATH": PATH, **env}
        self.write(launcher.resident_call(request, variables, ["FROM_IMAGE", "c"], name))
        mark, output = EndMark(name.encode()), b""
        assert self.child.stdout is not None
        assert self.child.stderr is not None
        while mark.ended is None:
            piece = os.read(self.child.stdout.fileno(), 4096)
            assert piece, self.child.stderr.read()
            output += mark.feed(piece)
        assert self.child.stderr.readline() == launcher.STARTED
        return output, mark.ended


@pytest.fixture
def resident(shell: list[str], tmp_path: Path) -> Iterator[Resident]:
    """A shell that waits for commands, and says nothing that nobody asked for."""
    one = Resident(shell, tmp_path / "memory.events")
    yield one
    assert one.child.communicate(timeout=20) == (b"", b"")


def test_each_command_has_its_own_words_variables_and_code(resident: Resident):
    """Byte for byte, and nothing of the one before."""
    odd = "'\"$HOME`id`\\\n}\n*; exit 3 \udcff'"
    show = 'printf "%s|" "$@" "$ODD"; env | grep -c -E "^(c|s|f|FROM_IMAGE|HOSTNAME)="; exit 7'
    output, ended = resident.run("sh", "-c", show, "x", "a  b", "*", ODD=odd)
    assert (output, ended) == (b"a  b|*|" + os.fsencode(odd) + b"|0\n", Ended(7, False))
    output, ended = resident.run("sh", "-c", 'echo "$#$ODD$c"', c="mine")
    assert (output, ended) == (b"0mine\n", Ended(0, False))


def test_what_cannot_be_executed_is_a_result(resident: Resident):
    """It is looked for in the job's own PATH, and the next command is found again."""
    assert resident.run("no-such")[1] == Ended(127, False)
    assert resident.run("/usr")[1] == Ended(126, False)
    assert resident.run("true", PATH="/none:/")[1] == Ended(127, False)
    assert resident.run("printf", "%s", "*")[0] == b"*"


def test_a_variable_that_the_shell_objects_to(resident: Resident):
    """What it says of that is no part of what the next command is told by; one that cannot be set ends the command."""
    assert resident.run("true", LC_ALL="xx_YY")[1].exit_code == 0
    assert resident.run("sh", "-c", "exit 3", UID="5")[1].exit_code in {1, 2, 3, 127}
    assert resident.run("echo", "on")[0] == b"on\n"


def test_a_command_may_read_and_write_as_it_likes(resident: Resident):
    """It has no way to the input from which the next command comes, and its output may have no end of a line."""
    assert resident.run("cat") == (b"", Ended(0, False))
    assert resident.run("sh", "-c", "printf end-; echo x >&2")[0] == b"end-x\n"


def test_a_kill_for_memory_is_told(resident: Resident):
    """Of the command in which it came, and of no other; where nobody can see it, that is told."""
    counter = str(resident.counter)
    count = 'printf "oom 3\\noom_kill $1\\n" >"$0"; exit 9'
    assert resident.run("sh", "-c", count, counter, "2")[1] == Ended(9, True)
    assert resident.run("sh", "-c", count, counter, "2")[1] == Ended(9, False)
    assert resident.run("rm", counter)[1] == Ended(0, None)
    assert resident.run("true")[1] == Ended(0, None)


def test_a_large_environment_arrives_whole(resident: Resident):
    """More than any shell reads at once."""
    value = "x'y\n" * 20_000
    assert resident.run("sh", "-c", "echo ${#BIG}", BIG=value)[0] == b"80000\n"


def test_a_call_that_breaks_off_starts_nothing(shell):
    """Wherever it does."""
    request = ExecRequest(argv=("echo", "ran"), env={}, cwd="/")
    whole = launcher.resident_call(request, {"PATH": PATH, "A": "a\nb"}, [], "end")
    _, *rest = launcher.RESIDENT_SHELL
    for length in range(0, len(whole) - 1, 7):
        script = launcher.RESIDENT_SCRIPT.encode() + whole[:length]
        done = subprocess.run(
            [*shell, *rest], input=script, capture_output=True, timeout=20, check=False
        )
        assert done.stdout == b""
        assert launcher.STARTED not in done.stderr


def test_an_end_is_found_however_it_is_split():
    """Only the whole of it counts; what looks like one is output."""
    text = b"x end- end-1234 end-1007m"
    for size in range(1, len(text)):
        mark = EndMark(b"end-1")
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        assert b"".join(map(mark.feed, pieces)) == b"x end- end-1234 "
        assert mark.ended == Ended(7, True)
    unseen = EndMark(b"end-1")
    assert (unseen.feed(b"x end-1000u"), unseen.ended) == (b"x ", Ended(0, None))
    cut = EndMark(b"end-1")
    assert (cut.feed(b"x end-100"), cut.rest(), cut.ended) == (b"x ", b"end-100", None)
