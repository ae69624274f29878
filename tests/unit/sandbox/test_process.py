"""Limits and exit statuses."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from sandbox import process
from sandbox.errors import SandboxUnavailableError
from sandbox.limits import Limits


@pytest.fixture
def inherited(monkeypatch):
    """Limits of this process as ``apply_process_defaults`` leaves them."""
    found = {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (4096, 20000),
        resource.RLIMIT_FSIZE: (Limits().file_bytes, -1),
        resource.RLIMIT_NPROC: (500, 1000),
        resource.RLIMIT_DATA: (-1, -1),
    }
    monkeypatch.setattr(resource, "getrlimit", found.__getitem__)
    return found


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0, (0, None)),
        (1, (1, None)),
        (128, (128, None)),
        (-9, (137, 9)),
        (137, (137, 9)),
        (192, (192, 64)),
        (193, (193, None)),
        (255, (255, None)),
    ],
)
def test_exit_codes(status, expected):
    """A status maps to the same code and signal whoever reports it."""
    assert process.exit_code_of(status) == expected


def test_inherited_limits_cost_nothing(inherited):
    """The default limits need no program in front of a command."""
    assert process.limit_options(Limits()) == []
    assert process.limited(["true"], []) == ["true"]


def test_only_differences_are_set(inherited):
    """Each limit that differs becomes one option."""
    limits = Limits(memory_bytes=1 << 20, pids=7, open_files=50000, file_bytes=10)
    assert process.limit_options(limits, process_count=100) == [
        "--nofile=20000:20000",
        "--fsize=10:unlimited",
        "--data=1048576",
        "--nproc=107",
    ]


def test_core_files_are_switched_off(inherited):
    """An agent-runner with core files does not hand them on."""
    inherited[resource.RLIMIT_CORE] = (-1, -1)
    assert process.limit_options(Limits()) == ["--core=0"]


def test_limits_without_their_program_are_refused(monkeypatch):
    """A limit that cannot be set is never dropped in silence."""
    monkeypatch.setattr(process, "PRLIMIT", "/nonexistent/prlimit")
    with pytest.raises(SandboxUnavailableError, match="prlimit"):
        process.limited(["true"], ["--core=0"])


def test_no_more_is_asked_than_the_hard_limit(inherited):
    """An ordinary user cannot raise a hard limit, and more than it nobody can use."""
    inherited[resource.RLIMIT_DATA] = (4096, 4096)
    options = process.limit_options(Limits(pids=900, memory_bytes=8192), process_count=200)
    assert options == ["--data=4096", "--nproc=1000"]


def test_the_end_of_processes_is_seen_without_a_descriptor():
    """They are looked at again and again then, because whoever waits is about to remove what was theirs."""
    script = (
        "import asyncio, os, resource, subprocess\n"
        "from sandbox.process import wait_gone\n"
        "async def main():\n"
        "    sleeper = subprocess.Popen(['/bin/sleep', '600'])\n"
        "    pidfd = os.pidfd_open(sleeper.pid)\n"
        "    free = os.dup(pidfd)\n"
        "    os.close(free)\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))\n"
        "    print(await wait_gone([pidfd], 0.1))\n"
        "    waiting = asyncio.ensure_future(wait_gone([pidfd], 20))\n"
        "    await asyncio.sleep(0)\n"
        "    sleeper.kill()\n"
        "    print(await waiting)\n"
        "    sleeper.wait()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, check=False)
    assert done.stdout.split() == [b"False", b"True"], done.stderr.decode()
