"""How the command begins."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

INTERRUPTED = """
import importlib.abc, os, signal, sys

class Interrupts(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == awaited:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, getattr(signal, sys.argv.pop(1)))
awaited = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupts())
from daemon.cli.console import main
main()
"""


@pytest.mark.parametrize(
    ("handler", "code", "printed"),
    [("default_int_handler", -signal.SIGINT, b""), ("SIG_IGN", 0, b"runner ")],
    ids=["typed", "ignored in the background of a script"],
)
def test_an_interrupt_while_the_command_loads_shows_no_trace(handler, code, printed):
    """It ends the command as the signal ends every program, if it is to."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", INTERRUPTED, handler, "daemon.cli.app", "--version"],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, b"")
    assert done.stdout[: len(b"runner ")] == printed


def test_an_interrupt_while_a_daemon_is_spawned_ahead_shows_no_trace():
    """That comes before the command is loaded."""
    module = "daemon.local.pending_daemon"
    words = ["default_int_handler", module, "local", "start"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", INTERRUPTED, *words], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_an_interrupt_after_that_is_explained():
    """By the command, which has a line and an exit code for it."""
    code = (
        "import signal; from daemon.cli import app, console\n"
        "app.main = lambda: print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
        "console.main()"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True)
    assert done.stdout == b"True\n"
