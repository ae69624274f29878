"""Deaths at a system call that nobody chose: strace ends a process as it enters the N-th of a kind.

What the named steps of ``steps.py`` may have forgotten. Needs the right to trace processes that are not dumpable, which
root has, and strace.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.chaos.installation import AGENT, SERVER, Installation
from tests.chaos.job_mix import mix
from tests.waiting import wait_until

CALLS = {
    # All threads of the server. Of the agent-runner the first alone: the others would be those of the jobs too.
    SERVER: (("pwrite64", 120), ("fdatasync", 25), ("sendmsg", 80), ("openat", 12), ("close", 40)),
    AGENT: (
        ("pwrite64", 40),
        ("ftruncate", 8),
        ("unlink", 8),
        ("openat", 80),
        ("mkdir", 20),
        ("rmdir", 20),
        ("vfork", 12),
        ("write", 30),
        ("pidfd_open", 12),
        ("epoll_wait", 150),
    ),
}
"""System calls, and below how many of them one is chosen."""
JOBS = 12
ATTACH_S = 30.0


def available() -> bool:
    """Tell whether such deaths can be had here."""
    return os.geteuid() == 0 and shutil.which("strace") is not None


def die_at_a_call(seed: int) -> tuple[str, bool, list[str]]:
    """Run some jobs and end a process at a system call; return which, whether it came to that, and the objections."""
    rng = random.Random(seed)
    process = rng.choice([SERVER, AGENT])
    call, bound = rng.choice(CALLS[process])
    number = rng.randint(1, bound)
    name = f"{process} at {call} {number} (seed {seed})"
    jobs = [job for job in mix(JOBS, rng) if job.cancel_after_s is None]
    with Installation("--slots", "3") as installation:
        pid = installation.wait_pid(process)
        with tracing(pid, call, number, threads=process == SERVER):
            for job in jobs:
                installation.submit(job)
            for job in jobs:
                installation.client.wait(job.job_id)
        died = installation.wait_pid(process) != pid
        objections = installation.judge(jobs).objections
        if objections:
            objections.append(installation.instance.tails())
        return name, died, objections


@contextmanager
def tracing(pid: int, call: str, number: int, *, threads: bool) -> Iterator[None]:
    """Let a process die as it enters a system call during the block, if it gets there."""
    argv = ["strace", "-q", *(["-f"] if threads else []), "-p", str(pid), "-o", "/dev/null"]
    inject = [f"--trace={call}", f"--inject={call}:signal=KILL:when={number}"]
    tracer = subprocess.Popen([*argv, *inject], stderr=subprocess.DEVNULL)
    try:
        # It may have died of the call already when we look.
        wait_until(lambda: traced_by(pid) in (tracer.pid, None), ATTACH_S, "strace attaches")
        yield
    finally:
        tracer.terminate()  # it lets go of who lives
        tracer.wait()


def traced_by(pid: int) -> int | None:
    """Return who traces a process; 0 for nobody, None if it has gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("TracerPid"))
    except (FileNotFoundError, ProcessLookupError):
        return None
