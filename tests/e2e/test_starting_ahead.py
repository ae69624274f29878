"""A start spawns daemon and job server before its command is loaded: whatever the command finds, none is left over."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import psutil
import pytest

from tests.e2e.instance import RUNNER, Instance, alive
from tests.waiting import wait_until

# Orphans of the command become children of this script.
LEFT = """
import json, subprocess, sys
from sandbox.process import become_subreaper
from sandbox.procfs import own_children
become_subreaper()
done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, capture_output=True)
print(json.dumps([done.returncode, done.stderr.decode(), sorted(own_children())]))
"""


def left_by(instance: Instance, *args: str) -> tuple[int, str, list[int]]:
    """Run a command; return its exit code, what it said, and the processes that it left behind."""
    script = [sys.executable, "-P", "-c", LEFT, RUNNER, *args]
    done = subprocess.run(script, env=instance.env, capture_output=True, check=True, timeout=60)
    code, error, left = json.loads(done.stdout)
    return code, error, left


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--slots", "many"], 2, "--slots"),
        (["--nonsense"], 2, "--nonsense"),
        (["--no-input", "--secret", "MISSING"], 8, "MISSING"),
        (["--no-input", "--listen", "nowhere"], 2, "nowhere"),
    ],
    ids=["a bad value", "a flag that is none", "a secret that is missing", "a bad address"],
)
def test_a_start_that_is_refused_leaves_no_process(instance, words, code, said):
    """They are gone before the command is, so that a script may try again at once."""
    found, error, left = left_by(instance, "local", "start", *words)
    assert found == code, error
    assert said in error
    assert "Traceback" not in error
    assert left == []


def test_a_start_that_goes_well_leaves_the_daemon(instance):
    """The control of the other tests: what is left is seen."""
    code, error, left = left_by(instance, "local", "start", "--no-input", "--listen", "127.0.0.1:0")
    assert code == 0, error
    # The script is the subreaper of the daemon, which ends with it no more than with the command.
    assert left == [instance.pid("daemon")]


def test_a_second_start_leaves_only_what_ran(started):
    """Also where the state directory is told beside the command."""
    before = started.pids()
    code, error, left = left_by(started, "--state-dir", str(started.state), "local", "start")
    assert (code, left) == (0, [])
    assert "already running" in error
    assert started.pids() == before


def test_a_killed_start_leaves_no_process(instance):
    """Nobody tells them: they see that whoever would have given them something to do has gone."""
    config = instance.root / "config.toml"
    os.mkfifo(config)  # nobody writes, so the command waits
    instance.extra_env["RUNNER_CONFIG"] = str(config)
    start = instance.popen("local", "start", "--no-input", stderr=subprocess.DEVNULL)
    ahead = wait_until(lambda: _ahead(start.pid), 20)
    start.kill()
    start.wait()
    wait_until(lambda: not any(alive(pid) for pid in ahead), 20)
    assert not instance.state.exists()


def test_a_secret_is_in_no_environment_whatever_its_name(instance):
    """A variable that the processes may have is theirs no more when it is a secret; those from before are not used."""
    instance.extra_env |= {"LC_TOKEN": "canary-0815", "LC_TIME": "C.UTF-8"}
    instance.start("--secret", "LC_TOKEN")
    environments = [_environ(pid) for pid in instance.pids()]
    assert not any(b"canary-0815" in each for each in environments)
    if os.geteuid() == 0:  # to others they are closed
        assert all(b"LC_TIME=C.UTF-8" in each for each in environments)


def _ahead(pid: int) -> list[int]:
    """Return the pids of daemon and job server when both are there, else nothing."""
    try:
        below = psutil.Process(pid).children(recursive=True)
        modules = {each.cmdline()[3]: each.pid for each in below}
    except (psutil.Error, IndexError):  # between fork and exec
        return []
    return list(modules.values()) if {"daemon", "daemon.server"} <= set(modules) else []


def _environ(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except PermissionError:
        return b""
