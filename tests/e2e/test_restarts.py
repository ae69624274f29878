"""`local restart` in the middle of work: whoever waits goes on waiting, and nothing is lost or shown twice."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e.instance import Instance
from tests.waiting import wait_until

RESTART = ("local", "restart", "--listen", "127.0.0.1:0")
LINES = b"".join(b"line %d\n" % number for number in range(1, 9))
PRINT_LINES = "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.3; done"


@pytest.fixture
def single(instance: Instance) -> Instance:
    """An installation that runs one job at a time."""
    instance.start("--slots", "1")
    return instance


def wait_jobs(instance: Instance, count: int) -> None:
    wait_until(lambda: len(instance.ok("jobs", "list").splitlines()) == count + 1, 20)


def wait_begun(instance: Instance) -> str:
    """Wait until the only job runs and has printed something; return its id."""
    wait_jobs(instance, 1)
    job_id = instance.ok("jobs", "list").splitlines()[1].split()[0]
    instance.wait_log(job_id, b"line 1")
    return job_id


def test_a_follower_survives_a_graceful_restart(started: Instance) -> None:
    """The running job may end in the drain; its follower sees every byte once and its exit code."""
    command = ("jobs", "submit", "--follow", "--", "/bin/sh", "-c", f"{PRINT_LINES}; exit 3")
    follower = started.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_begun(started)
    started.ok(*RESTART)
    out, errors = follower.communicate(timeout=60)
    assert (follower.returncode, out) == (3, LINES), errors


def test_a_follower_goes_on_with_the_next_attempt(started: Instance) -> None:
    """`restart --now` interrupts the attempt; the one after the restart is shown whole, the first not again."""
    script = f"[ $RUNNER_ATTEMPT != 1 ] || {{ echo line 1; sleep 1000; }}; {PRINT_LINES}"
    command = ("jobs", "submit", "--follow", "--", "/bin/sh", "-c", script)
    follower = started.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    job_id = wait_begun(started)
    started.ok(*RESTART, "--now")
    out, errors = follower.communicate(timeout=60)
    assert follower.returncode == 0, errors
    # The first attempt ends with whatever its shell says of a TERM.
    first, second = (started.log(job_id, "--attempt", number) for number in ("1", "2"))
    assert first.startswith(b"line 1\n")
    assert second == LINES
    assert out == first + second


@pytest.mark.parametrize("how", ["--follow", "--wait"])
def test_who_waits_for_a_queued_job_survives_a_restart(single: Instance, how: str) -> None:
    """The job is still in the queue when the server goes away; it runs after the restart."""
    single.submit("sleep 2")
    command = ("jobs", "submit", how, "--", "/bin/sh", "-c", "echo done; exit 4")
    waiter = single.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_jobs(single, 2)
    single.ok(*RESTART)
    out, errors = waiter.communicate(timeout=60)
    assert waiter.returncode == 4, errors
    assert b"done" in out or how == "--wait"


def test_a_submit_during_a_restart_waits_for_it(started: Instance) -> None:
    """Whatever moment of a restart it meets, a submit is accepted once."""
    accepted = 0
    # Waited for in any case: a stop in its middle would find nothing to stop.
    with started.popen(*RESTART, stderr=subprocess.DEVNULL) as restart:
        while restart.poll() is None:
            started.ok("jobs", "submit", "--", "true")
            accepted += 1
    assert restart.returncode == 0, started.tails()
    assert len(started.ok("jobs", "list", "--limit", "1000").splitlines()) == accepted + 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_more_jobs_than_a_watch_may_name(instance: Instance) -> None:
    """1001 jobs are submitted and waited for in one command; so are they by their ids."""
    instance.start("--slots", "16", "--sandbox-tier", "plain", "--allow-unsandboxed")
    done = instance.run("jobs", "submit", "--count", "1001", "--wait", "--", "true", timeout=500)
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 1001
    assert all(line.endswith("succeeded") for line in lines)
    job_ids = [line.split()[0] for line in lines]
    assert instance.ok("jobs", "wait", *job_ids).splitlines() == lines
