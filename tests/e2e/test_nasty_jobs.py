"""Jobs that misbehave: each ends as it should, and no process of ours grows with what a job prints."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.instance import PROCESSES, Instance

MIB = 1 << 20


def peak_rss(instance: Instance) -> dict[str, int]:
    peaks = {}
    for process in PROCESSES:
        status = Path(f"/proc/{instance.pid(process)}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        peaks[process] = int(line.split()[1]) * 1024
    return peaks


def grown_mib(instance: Instance, before: dict[str, int]) -> dict[str, float]:
    return {name: (peak - before[name]) / MIB for name, peak in peak_rss(instance).items()}


def assert_small_growth(instance: Instance, before: dict[str, int]) -> None:
    grown = grown_mib(instance, before)
    assert grown["daemon"] < 8, grown
    assert grown["job-server"] < 40, grown
    assert grown["agent-runner"] < 40, grown


@pytest.mark.slow
def test_two_hundred_megabytes(started: Instance) -> None:
    """200 MB of lines arrive whole, with the right digest, at a follower too."""
    started.wait(started.submit("echo warm"))
    before = peak_rss(started)
    line = "x" * 79 + "\n"
    count = 200_000_000 // len(line)
    job_id = started.submit(f"yes {'x' * 79} | head -n {count}")
    digest, length = hashlib.sha256(), 0
    with started.popen("jobs", "logs", job_id, "--follow", stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        while chunk := follower.stdout.read(MIB):
            digest.update(chunk)
            length += len(chunk)
        assert follower.wait(60) == 0
    ended = started.wait(job_id, timeout=120)
    assert ended["state"] == "SUCCEEDED"
    log = ended["attempts"][0]["log"]
    assert log["bytes"] == length == count * len(line)
    assert log["sha256"] == digest.hexdigest()
    assert log["truncated"] is None
    assert_small_growth(started, before)


@pytest.mark.slow
def test_a_gigabyte_without_a_newline(started: Instance) -> None:
    """One endless line is only bytes; memory stays flat and the length is right."""
    started.wait(started.submit("echo warm"))
    before = peak_rss(started)
    ended = started.wait(started.submit("head -c 1073741824 /dev/zero | tr '\\0' a"), timeout=150)
    assert ended["state"] == "SUCCEEDED"
    assert ended["attempts"][0]["log"]["bytes"] == 1 << 30
    assert_small_growth(started, before)


def test_a_log_has_a_bound(started: Instance) -> None:
    """Output past the job's bound is dropped and the log says so; the job itself is not disturbed."""
    job = started.job_file(
        "job_command: 'yes | head -c 3000000; exit 4'\nsandbox: {output: 1MiB}\n"
    )
    done = started.run("jobs", "submit", "--file", job, "--follow")
    assert done.returncode == 4
    assert len(done.stdout) == MIB
    assert b"size_limit" in done.stderr


@pytest.mark.parametrize("tier", ["bwrap", "landlock"])
def test_daemons_of_a_job_die_with_it(instance: Instance, tier: str) -> None:
    """Double forks, own sessions and ignored signals do not outlive the job, on either tier."""
    instance.start("--sandbox-tier", tier)
    name = f"31.{os.getpid()}"
    job_id = instance.submit(
        f"(setsid sh -c \"trap '' TERM HUP; sleep {name}\" >/dev/null 2>&1 &) ;"
        f" (setsid setsid sleep {name} &) ; sleep {name} & echo forked"
    )
    ended = instance.wait(job_id)
    assert (ended["state"], ended["sandbox"]["tier"]) == ("SUCCEEDED", tier), instance.tails()
    assert instance.log(job_id) == b"forked\n"
    found = subprocess.run(["pgrep", "-fa", f"sleep {name}"], capture_output=True, check=False)
    assert found.stdout == b""


@pytest.mark.parametrize("tier", ["bwrap", "landlock"])
def test_a_job_that_ignores_term_is_killed(instance: Instance, tier: str) -> None:
    """Its own time-out ends it: TERM, ten seconds, KILL."""
    instance.start("--sandbox-tier", tier)
    job = instance.job_file(
        "job_command: \"trap '' TERM; echo deaf; sleep 300 & wait; sleep 300\"\ntimeout_seconds: 1\n"
    )
    done = instance.run("jobs", "submit", "--file", job, "--follow", timeout=60)
    assert done.returncode == 124, done.stderr.decode() + instance.tails()
    assert done.stdout == b"deaf\n"
    assert b"timed out" in done.stderr


def test_invalid_utf8_arrives_as_it_is(started: Instance) -> None:
    """A log is bytes."""
    job_id = started.submit(r"printf '\377\376\000\200ok\n'")
    started.wait(job_id)
    assert started.log(job_id) == b"\xff\xfe\x00\x80ok\n"


def test_cancel_of_a_running_and_of_a_queued_job(started: Instance) -> None:
    """A queued job ends at once; a running one gets TERM and may clean up."""
    running = [
        started.submit("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done")
        for _ in range(2)
    ]
    for job_id in running:
        started.wait_log(job_id, b"up")
    queued = started.submit("echo never")
    assert started.job(queued)["state"] == "PENDING"
    started.ok("jobs", "cancel", queued)
    assert started.job(queued)["state"] == "CANCELLED"
    assert started.log(queued) == b""
    started.ok("jobs", "cancel", *running)
    for job_id in running:
        ended = started.wait(job_id)
        assert (ended["state"], ended["end_reason"]) == ("CANCELLED", "CANCELLED")
        log = started.log(job_id)
        assert log.startswith(b"up\n")
        assert log.endswith(b"bye\n")
    assert started.run("jobs", "wait", queued).returncode == 130


def test_many_jobs_run_each_once(started: Instance) -> None:
    """A batch of 100 from one command: every one succeeds."""
    done = started.run(
        "jobs", "submit", "--count", "100", "--wait", "--json", "--", "true", timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b'"SUCCEEDED"') >= 100
