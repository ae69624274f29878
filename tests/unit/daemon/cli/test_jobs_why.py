"""What ``runner jobs why`` shows a person."""

from __future__ import annotations

from typing import Any

from daemon.cli.jobs_why import explained, tree_of

NOW = 1_700_000_000.0
STAMP = "2023-11-14T22:13:1{}Z"


def process(pid: int, parent: int, command: str = "x") -> dict[str, Any]:
    return {
        "pid": pid,
        "parent_pid": parent,
        "command": command,
        "state": "S",
        "cpu_seconds": 0.25,
        "start_time": STAMP.format(0),
    }


def found(**fields: Any) -> dict[str, Any]:
    job = {"id": "j1", "name": "build", "state": "RUNNING"}
    rest: dict[str, Any] = {"waits": [], "live": None, "next_step": None, "next_step_time": None}
    return {"job": job, "summary": "runs", **rest, **fields}


def live(**fields: Any) -> dict[str, Any]:
    values = {
        "agent": "local",
        "connected": True,
        "heartbeat_time": STAMP.format(8),
        "lease_expire_time": "2023-11-14T22:13:50Z",
        "output_time": None,
        "log_bytes": 0,
        "processes": [],
        "processes_unknown": None,
    }
    return values | fields


def test_the_tree_is_drawn_with_each_child_below_its_parent():
    listed = [process(10, 1), process(11, 10), process(14, 99), process(12, 11), process(13, 10)]
    assert [(one["pid"], branch) for one, branch in tree_of(listed)] == [
        (10, ""),
        (11, "├─ "),
        (12, "│  └─ "),
        (13, "└─ "),
        (14, ""),
    ]


def test_a_chain_as_deep_as_there_are_processes_is_no_recursion():
    listed = [process(pid, pid - 1) for pid in range(2, 3000)]
    assert [one["pid"] for one, _ in tree_of(listed)] == list(range(2, 3000))


def test_a_process_that_is_its_own_parent_shows_once():
    assert [one["pid"] for one, _ in tree_of([process(1, 1), process(0, 0)])] == [1, 0]


def test_a_running_job():
    lines = list(explained(found(live=live(processes=[process(10, 1, "make \x1b[2J")])), NOW))
    assert lines[0] == "job j1 (build) runs"
    text = "\n".join(lines)
    assert "agent-runner:   local\n" in text
    assert "heartbeat:      2.0s ago\n" in text
    assert "lease:          ends in 30.0s" in text
    assert "output:         none yet" in text
    assert lines[-1].split()[:4] == ["10", "sleeping", "0.2s", "10.0s"]
    assert "\x1b" not in text


def test_processes_that_are_not_known():
    why = live(processes_unknown="its agent-runner is not connected", connected=False)
    text = "\n".join(explained(found(live=why), NOW))
    assert "agent-runner:   local, not connected" in text
    assert "processes:      not known: its agent-runner is not connected" in text


def test_a_waiting_job_says_on_what_and_what_is_next():
    waits = [{"kind": "time", "text": "may not start before 10", "job_ids": []}]
    step = {"next_step": "it is queued", "next_step_time": "2023-11-14T22:14:20Z"}
    text = "\n".join(explained(found(waits=waits, **step), NOW))
    assert "waits for:\n  time          may not start before 10" in text
    assert "next:           it is queued (in 1m00s, " in text
