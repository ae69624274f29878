"""What the launcher of a single command says when that has ended well, under every shell that is here."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from sandbox.base import ExecRequest
from sandbox.container import launcher
from sandbox.container.end_mark import Ended, EndMark
from tests.unit.sandbox.container.test_resident_script import PATH

MARKER = "end-of-it"
TOLD = launcher.new_end_mark()


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    """Where the kernel counts whom it has killed for memory."""
    path = tmp_path / "memory.events"
    path.write_text("oom 3\noom_kill 1\n")
    return path


def run(shell: list[str], counter: Path, script: str) -> tuple[int, bytes]:
    """Return the code and the output of a command, with all that the launcher has added to it."""
    _, flag, text, *rest = launcher.words(MARKER)
    text, count = re.subn(r"for f in /sys/\S+ /sys/\S+;", f"for f in {counter};", text)
    assert count == 1
    request = ExecRequest(argv=("sh", "-c", script, "sh", str(counter)), env={}, cwd="/")
    call = launcher.call(request, {"PATH": PATH}, [], MARKER, TOLD)
    done = subprocess.run(
        [*shell, flag, text, *rest], input=call, capture_output=True, timeout=20, check=False
    )
    assert done.stderr.startswith(launcher.STARTED)
    return done.returncode, done.stdout


def test_a_good_end_is_told_behind_the_output(shell, counter):
    """If nobody is left, and only then: whoever is ends with the container, of which the engine knows."""
    assert run(shell, counter, "printf x") == (0, f"x{TOLD}000.".encode())
    assert run(shell, counter, "printf x; exit 3") == (3, b"x")
    assert run(shell, counter, "kill -9 $$") == (137, b"")
    assert run(shell, counter, "sleep 60 >/dev/null 2>&1 & echo x") == (0, b"x\n")


def test_a_good_end_is_not_told_where_memory_was_short(shell, counter):
    """Nor where nobody can tell."""
    assert run(shell, counter, 'printf "oom_kill 2\\n" >"$1"') == (0, b"")
    counter.unlink()
    assert run(shell, counter, "true") == (0, b"")


def test_the_command_is_not_told_the_mark(shell, counter):
    """Neither by its environment nor by its words."""
    code, output = run(shell, counter, "tr '\\0' '\\n' </proc/$$/environ; cat /proc/$$/cmdline")
    assert code == 0
    assert output.count(TOLD.encode()) == 1
    assert output.endswith(f"{TOLD}000.".encode())


def test_a_mark_that_something_follows_is_output():
    """Somebody has read it in the memory of the launcher, and said it too soon."""
    mark = EndMark(b"\x1eend")
    assert mark.feed(b"a\x1eend000.") == b"a"
    assert mark.ended == Ended(0, False)
    assert mark.feed(b"b\x1eend000") == b"\x1eend000.b"
    assert mark.ended is None
    assert mark.feed(b".\x1eend003m") == b"\x1eend000."
    assert mark.ended == Ended(3, True)
    assert mark.rest() == b""
