"""A person at a real terminal: the key that is typed appears nowhere."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.instance import PROCESSES, Instance
from tests.e2e.terminal import Terminal

KEY = "sk-test-" + "Zq7" * 8


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_typed_key_appears_nowhere(instance: Instance, term: str) -> None:
    """Not on the screen, in a file, in ps, in cmdline or environ of any process; and the job gets it."""
    terminal = Terminal(instance, ["local", "start", "--listen", "127.0.0.1:0"], term)
    terminal.wait_for("ANTHROPIC_API_KEY; kept in memory only; Enter skips")
    terminal.child.send(KEY)
    if term == "xterm":
        terminal.wait_for("*" * len(KEY))
    terminal.child.send("\r")
    assert terminal.end() == 0, terminal.pump()
    assert "agent-runner  pid" in terminal.pump()
    assert KEY.encode() not in terminal.raw
    assert not any(KEY[i : i + 6].encode() in terminal.raw for i in range(len(KEY) - 5))

    path = instance.job_file(
        "job_command: 'test ${#K} -eq 32 && echo $K'\nenv: {K: '${secret:local:ANTHROPIC_API_KEY}'}\n"
    )
    done = instance.run("jobs", "submit", "--file", path, "--follow")
    assert (done.returncode, done.stdout) == (0, b"***\n")

    assert instance.files_with(KEY.encode()) == []
    for process in PROCESSES:
        for name in ("cmdline", "environ"):
            data = (
                Path(f"/proc/{instance.pid(process)}/{name}").read_bytes()
                if os.geteuid() == 0
                else b""
            )
            assert KEY.encode() not in data, (process, name)
    listing = subprocess.run(["ps", "auxeww"], capture_output=True, check=True).stdout
    assert KEY.encode() not in listing


def test_enter_skips_an_optional_secret(instance: Instance) -> None:
    """It says what will not run without it, and starts."""
    terminal = Terminal(instance, ["local", "start", "--listen", "127.0.0.1:0"], "xterm")
    terminal.wait_for("Enter skips")
    terminal.child.send("\r")
    assert terminal.end() == 0
    text = terminal.raw.decode(errors="replace")
    assert "${secret:local:ANTHROPIC_API_KEY}" in text
    assert "will not run" in text


def test_ctrl_c_at_the_prompt_leaves_nothing(instance: Instance) -> None:
    """Exit 130, one line, no process."""
    terminal = Terminal(instance, ["local", "start", "--secret", "NPM_TOKEN"], "xterm")
    terminal.wait_for("ANTHROPIC_API_KEY")
    terminal.child.send("\x03")
    assert terminal.end() == 130
    assert "Traceback" not in terminal.pump()
    instance.wait_gone()


def test_a_key_in_the_environment_is_not_asked_for(instance: Instance) -> None:
    """No prompt; and the long-lived processes do not carry it in their environment."""
    instance.extra_env["ANTHROPIC_API_KEY"] = KEY
    terminal = Terminal(instance, ["local", "start", "--listen", "127.0.0.1:0"], "xterm")
    assert terminal.end() == 0
    assert not re.search("Enter skips", terminal.raw.decode(errors="replace"))
    if os.geteuid() == 0:
        for process in PROCESSES:
            environ = Path(f"/proc/{instance.pid(process)}/environ").read_bytes()
            assert KEY.encode() not in environ
    assert instance.files_with(KEY.encode()) == []
