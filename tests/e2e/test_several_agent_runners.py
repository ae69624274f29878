"""Several agent-runners beside one job server: they share the work, and one of them may go at any moment."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter

import pytest

from daemon.paths import StateDir
from sandbox import procfs
from sandbox.env import OWNER_MARKER
from tests.e2e.instance import Instance, alive
from tests.waiting import wait_until


def agents(instance: Instance, ids: list[str]) -> Counter[str]:
    return Counter(instance.job(job_id)["attempts"][-1]["agent"] for job_id in ids)


def marked(instance: Instance, suffix: str) -> list[int]:
    """Return the processes of the jobs of one agent-runner."""
    label = StateDir(instance.state, instance.state).id + suffix
    pids = procfs.snapshot()
    return [pid for pid in pids if procfs.environ_value(pid, OWNER_MARKER) == label]


def test_they_share_the_work(instance: Instance):
    """Six jobs that all run at once fill three agent-runners with two slots each; each runs once."""
    told = instance.start("--agent-runners", "3", "--slots", "2")
    assert "agent-runner-3" in told
    assert list(instance.status()["processes"]) == [
        "daemon",
        "job-server",
        "agent-runner",
        "agent-runner-2",
        "agent-runner-3",
    ]
    ids = [instance.submit("echo up; sleep 60") for _ in range(6)]
    for job_id in ids:
        instance.wait_log(job_id, b"up")

    assert agents(instance, ids) == {"local": 2, "local-2": 2, "local-3": 2}

    for job_id in ids:
        instance.ok("jobs", "cancel", job_id)
        assert instance.wait(job_id)["state"] == "CANCELLED"
    assert "agent-runner-2" in instance.ok("local", "status")
    wait_until(lambda: "ready" in instance.ok("local", "logs", "agent-runner-2"), 30)


def test_one_that_dies_costs_only_its_own_jobs(instance: Instance):
    """The jobs of the others go on and are not killed by its next start, which cleans up after the dead one."""
    instance.start("--agent-runners", "2", "--slots", "1")
    ids = [instance.submit("echo up; while ! test -e go; do sleep 0.05; done") for _ in range(2)]
    for job_id in ids:
        instance.wait_log(job_id, b"up")
    by_agent = {instance.job(job_id)["attempts"][-1]["agent"]: job_id for job_id in ids}

    instance.kill("agent-runner-2")

    lost = by_agent["local-2"]
    wait_until(
        lambda: len(instance.job(lost)["attempts"]) == 2, 30, lambda: str(instance.job(lost))
    )
    kept = instance.job(by_agent["local"])
    assert (kept["state"], len(kept["attempts"])) == ("RUNNING", 1)
    wait_until(lambda: instance.job(lost)["state"] == "RUNNING", 30, "the job runs again")
    for job_id in ids:
        instance.ok("jobs", "cancel", job_id)
        assert instance.wait(job_id)["state"] == "CANCELLED"


def test_a_result_of_one_that_is_no_more_is_delivered(instance: Instance):
    """The end of an attempt that lies in its spool arrives, with its whole log, when there are fewer after a crash."""
    instance.start("--agent-runners", "2", "--slots", "1")
    until_told = "echo up; while [ ! -e go ]; do sleep 0.1; done; echo done"
    ids = [instance.submit(until_told) for _ in range(2)]
    for job_id in ids:
        instance.wait_log(job_id, b"up")
    os.kill(instance.pid("job-server"), signal.SIGSTOP)  # nobody takes the ends
    for job_id in ids:
        workspaces = StateDir(instance.state, instance.state).workspaces
        (source,) = workspaces.glob(f"agent-runner*/{job_id}-1/job/src")
        (source / "go").touch()

    def sealed(job_id: str) -> bool:
        spools = list(instance.state.glob(f"spool*/{job_id}-1-*.spool"))
        return bool(spools) and all(b'"end_reason"' in path.read_bytes() for path in spools)

    wait_until(lambda: all(map(sealed, ids)), 30, "both ends are in the spools")
    assert len(list((instance.state / "spool-2").iterdir())) == 1
    instance.kill_all()

    instance.start("--agent-runners", "1", "--slots", "1")

    assert list(instance.status()["processes"]) == ["daemon", "job-server", "agent-runner"]
    for job_id in ids:
        job = instance.wait(job_id)
        assert (job["state"], len(job["attempts"])) == ("SUCCEEDED", 1)
        assert instance.log(job_id) == b"up\ndone\n"
    assert not (instance.state / "spool-2").exists()


def test_what_one_that_is_no_more_has_left_running_is_killed(instance: Instance):
    """Without a namespace its jobs outlive a killed installation; their next attempts must not run beside them."""
    plain = ("--slots", "1", "--sandbox-tier", "plain", "--allow-unsandboxed")
    instance.start("--agent-runners", "2", *plain)
    ids = [instance.submit("echo up; sleep 1000") for _ in range(2)]
    for job_id in ids:
        instance.wait_log(job_id, b"up")
    # The shell says that it is up before it has started the other process.
    left = wait_until(lambda: found if len(found := marked(instance, "-2")) > 1 else [], 20)
    before = procfs.snapshot()
    (command,) = [pid for pid in left if before[pid].ppid not in left]
    left.remove(command)
    instance.kill_all()
    # The command itself dies with the thread that spawned it; what it has started does not.
    wait_until(lambda: not alive(command), 30)
    assert left
    assert all(alive(pid) for pid in left)

    instance.start("--agent-runners", "1", *plain)

    assert not any(alive(pid) for pid in left)
    wait_until(lambda: not any("agent-runner-2" in path for path in instance.workspaces()), 20)
    assert not (instance.state / "spool-2").exists()
    assert "agent_runner_retired" in (instance.state / "logs" / "daemon.log").read_text()
    for job_id in ids:
        instance.ok("jobs", "cancel", job_id)
        assert instance.wait(job_id)["state"] == "CANCELLED"


@pytest.mark.parametrize("number", ["0", "17", "many"])
def test_a_number_that_cannot_be_is_refused(instance: Instance, number: str):
    """One clear line, and nothing is started."""
    told = instance.fails("local", "start", "--no-input", "--agent-runners", number, code=2)
    assert f"--agent-runners {number}" in told
    assert json.loads(instance.run("local", "status", "--json").stdout or "{}") == {}
