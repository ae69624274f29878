"""What a job file bounds, requires and permits, seen by a person: the end, the log and the record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox.bounds.control_groups import PREFIX, groups_of
from sandbox.bounds.hierarchies import host_hierarchies
from sandbox.limits import Limit
from tests.e2e.instance import Instance

BOMB = "python3 -c 'x = b\"x\" * (512 << 20); import time; time.sleep(5)'"


def keeps_memory() -> bool:
    """Tell whether this host has a control group for memory."""
    return any(Limit.MEMORY in hierarchy.limits for hierarchy in host_hierarchies())


def test_out_of_memory_is_said(instance: Instance) -> None:
    """Not a mystery 137."""
    path = instance.job_file(f"job_command: |\n  {BOMB}\nsandbox: {{memory: 64MiB}}\n")
    done = instance.run("run-local", "--file", path)
    assert done.returncode != 0
    if keeps_memory():
        assert b"needed more than the 67,108,864 bytes of memory it may have" in done.stderr


def test_the_record_tells_what_kept_the_bounds(started: Instance) -> None:
    """Each with its value and its keeper, on the job and on the attempt; the end is OUT_OF_MEMORY."""
    path = started.job_file(
        f"job_command: |\n  {BOMB}\nsandbox: {{memory: 64MiB, pids: 50, disk: 1GiB}}\n"
    )
    done = started.run("jobs", "submit", "--wait", "--json", "--file", path)
    job = json.loads(done.stdout)
    limits = {one["name"]: (one["value"], one["by"]) for one in job["sandbox"]["limits"]}
    assert limits["disk"] == (1 << 30, "watchdog")
    assert (limits["memory"][0], limits["pids"][0]) == (64 << 20, 50)
    shown = started.run("jobs", "show", job["id"])
    assert b"1073741824 of disk by watchdog" in shown.stdout
    if keeps_memory():
        assert (job["state"], job["end_reason"]) == ("FAILED", "OUT_OF_MEMORY")
        assert limits["memory"][1].startswith("cgroup-v")


def test_a_refusal_stands_in_the_log(started: Instance) -> None:
    """One line for each request that went nowhere."""
    path = started.job_file(
        "job_command: |\n"
        "  python3 -c 'import os, urllib.request as u; u.urlopen(\"http://evil.test/x\")' 2>/dev/null\n"
        "  echo ended $?\n"
        "sandbox: {network: [allowed.test]}\n"
    )
    done = started.run("jobs", "submit", "--wait", "--json", "--file", path)
    job = json.loads(done.stdout)
    if job["end_reason"] == "SANDBOX_FAILED":
        pytest.skip(job["message"])
    log = started.run("jobs", "logs", job["id"]).stdout.decode()
    assert log == "runner: network refused GET evil.test:80: not on the list\nended 1\n"
    assert job["sandbox"]["walls_not_held"] == []


def test_what_is_required_is_there_or_nothing_runs(started: Instance) -> None:
    """The message says what is missing and what to do; what is there is no obstacle."""
    template = "job_command: 'echo ran'\nsandbox: {{network: {}, require: [network]}}\n"
    done = started.run(
        "jobs", "submit", "--wait", "--json", "--file", started.job_file(template.format("on"))
    )
    job = json.loads(done.stdout)
    if job["sandbox"] is None or "network" in job["sandbox"]["walls_not_held"]:
        assert (done.returncode, job["end_reason"]) == (125, "SANDBOX_FAILED")
        assert "network: use network: off" in job["message"]
    off = started.run(
        "jobs", "submit", "--wait", "--json", "--file", started.job_file(template.format("off"))
    )
    assert json.loads(off.stdout)["state"] == "SUCCEEDED"


@pytest.mark.alone
def test_gc_removes_the_control_groups_of_the_dead(started: Instance) -> None:
    """Those of a killed installation, and of no other."""
    if not keeps_memory():
        pytest.skip("no control groups here")
    path = started.job_file("job_command: 'echo kept; sleep 1000'\nsandbox: {pids: 99}\n")
    done = started.run("jobs", "submit", "--json", "--file", path)
    job_id = json.loads(done.stdout)["id"]
    started.wait_log(job_id, b"kept")
    parents = {hierarchy.parent for hierarchy in host_hierarchies()}
    (group,) = {found for parent in parents for found in parent.glob(f"{PREFIX}*/{job_id}-1.*")}
    label = group.parent.name.removeprefix(PREFIX)
    assert all(
        one["kind"] != "control group" for one in json.loads(started.run("gc", "--json").stdout)
    )
    started.kill_all()
    assert group in groups_of(label)
    found = json.loads(started.run("gc", "--json", "--force").stdout)
    removed = {Path(one["path"]) for one in found if one["kind"] == "control group"}
    assert group in removed
    assert groups_of(label) == []
