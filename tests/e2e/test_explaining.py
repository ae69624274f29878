"""What a person asks about jobs, through the console script: why, watch, retry, list."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.instance import Instance
from tests.e2e.terminal import Terminal
from tests.e2e.test_counts import modules_of
from tests.waiting import wait_until

SECRET = "hunter2-" + "q8Zk" * 6


def why(instance: Instance, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(instance.ok("jobs", "why", job_id, "--json"))
    return found


def test_why_shows_the_tree_with_every_secret_masked(instance: Instance) -> None:
    """A value in a command line, whole or beyond the part that is shown, does not leave the agent-runner."""
    instance.extra_env["SECRET"] = SECRET
    instance.start("--secret", "SECRET")
    path = instance.job_file(
        'job_command: \'sh -c "sleep 4712.1; : $S" & sh -c "sleep 4712.2; :'
        + "x" * 160
        + "$S\" & wait'\nenv: {S: '${secret:local:SECRET}'}\n"
    )
    job_id = instance.ok("jobs", "submit", "--file", path).strip()
    wait_until(
        lambda: len((why(instance, job_id)["live"] or {"processes": []})["processes"]) == 5,
        20,
        lambda: str(why(instance, job_id)),
    )
    found = why(instance, job_id)
    commands = [process["command"] for process in found["live"]["processes"]]
    assert any("sleep 4712.1; : ***" in command for command in commands), commands
    assert all(len(command) <= 200 for command in commands)
    for i in range(len(SECRET) - 7):
        assert not any(SECRET[i : i + 8] in command for command in commands), commands
    pids = {process["pid"] for process in found["live"]["processes"]}
    children = [one for one in found["live"]["processes"] if one["parent_pid"] in pids]
    assert len(children) == 4
    assert found["live"]["connected"] is True
    assert found["live"]["processes_unknown"] is None
    assert found["next_step"].startswith("it is stopped for running longer than")
    text = instance.ok("jobs", "why", job_id)
    assert "sleep 4712.1" in text
    assert SECRET not in text
    instance.ok("jobs", "cancel", job_id)
    instance.wait(job_id)
    assert why(instance, job_id)["summary"].startswith("was cancelled, after ")
    assert instance.files_with(SECRET.encode()) == []


def test_why_of_waiting_jobs(started: Instance) -> None:
    """A label, a dependency and a full house are each named; so is an agent-runner that has died."""
    file = started.job_file("job_command: 'true'\nlabels: {gpu: a100}\n")
    label = started.ok("jobs", "submit", "--file", file).strip()
    assert "no connected agent-runner offers gpu=a100" in started.ok("jobs", "why", label)
    file = started.job_file(f"job_command: 'true'\ndepends_on: [{label}]\n")
    blocked = started.ok("jobs", "submit", "--file", file).strip()
    found = why(started, blocked)
    assert [wait["kind"] for wait in found["waits"]] == ["dependency"]
    assert found["waits"][0]["job_ids"] == [label]
    file = started.job_file("job_command: 'true'\nnot_before: 1h\n")
    later = started.ok("jobs", "submit", "--file", file).strip()
    found = why(started, later)
    assert [wait["kind"] for wait in found["waits"]] == ["time"]
    assert found["next_step_time"] is not None
    group = "job_command: 'sleep 60'\nconcurrency: {group: deploy, limit: 1}\n"
    first = started.ok("jobs", "submit", "--file", started.job_file(group)).strip()
    started.wait_running(first)
    second = started.ok("jobs", "submit", "--file", started.job_file(group)).strip()
    found = why(started, second)
    assert [wait["kind"] for wait in found["waits"]] == ["group"]
    assert found["waits"][0]["job_ids"] == [first]
    assert "concurrency group deploy has no room: 1 of 1 run" in found["summary"]
    assert started.fails("jobs", "why", "nojob", code=3).startswith("runner: ")
    for job_id in (label, later, first, second):
        started.ok("jobs", "cancel", job_id)
    assert "depends on did not succeed" in why(started, blocked)["summary"]


@contextmanager
def killed_at_the_end(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a process that a failing test would wait for without an end."""
    try:
        yield
    finally:
        process.kill()


def test_watch_tells_every_change_once_over_a_dead_server(started: Instance) -> None:
    """A watcher that lives through the death of the server has seen what happened meanwhile, in order."""
    held = started.submit("sleep 1000")
    started.wait_running(held)
    with (
        started.popen("jobs", "watch", "--json", stdout=subprocess.PIPE) as watching,
        killed_at_the_end(watching),
    ):
        assert watching.stdout is not None
        # It tells what happens after its start, which takes as long as this host is busy.
        while not select.select([watching.stdout], [], [], 0.5)[0]:
            started.submit("true")
        lines: list[dict[str, Any]] = [json.loads(watching.stdout.readline())]
        started.kill("job-server")
        jobs = [started.submit("true") for _ in range(5)]
        for job_id in jobs:
            started.wait(job_id)
        started.ok("jobs", "cancel", held)
        started.wait(held)
        while not (lines[-1]["job_id"] == held and lines[-1]["state"] == "CANCELLED"):
            lines.append(json.loads(watching.stdout.readline()))
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
    ids = [line["event_id"] for line in lines]
    assert ids == sorted(set(ids))
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    for job_id in jobs:
        states = [line["state"] for line in lines if line["job_id"] == job_id]
        assert states == ["PENDING", "RUNNING", "SUCCEEDED"]


def test_watch_of_named_jobs_ends_with_them(started: Instance) -> None:
    """One that has ended before shows its end; nothing of other jobs is shown."""
    before = started.submit("exit 3")
    started.wait(before)
    other, slow = started.submit("true"), started.submit("sleep 1")
    lines = started.ok("jobs", "watch", before, slow).splitlines()
    assert f"{before}  FAILED  failed: exit code 3" in lines[0]
    assert f"{slow}  SUCCEEDED  succeeded" in lines[-1]
    assert not any(other in line for line in lines)
    assert started.fails("jobs", "watch", "nojob", code=3)


@pytest.fixture
def table(started: Instance):
    terminal = Terminal(started, ["jobs", "watch"], "xterm")
    yield terminal
    terminal.child.close(force=True)


def test_the_live_table(started: Instance, table: Terminal) -> None:
    """It shows what runs, waits and has ended, follows every change in place, and fits the window."""
    jobs = [started.submit("sleep 1000", "--name", f"job {n}") for n in range(3)]
    table.wait_for("2 running, 1 waiting")
    for job_id in jobs:
        table.wait_for(job_id)
    started.ok("jobs", "cancel", jobs[0])
    table.wait_for("2 running, 0 waiting, 1 ended")
    row = next(line for line in table.screen.display if jobs[0] in line)
    assert "CANCELLED" in row
    assert "job 0" in row
    assert [line for line in table.screen.display if line.strip()][-1] == row
    table.resize(6, 60)
    wait_until(lambda: len(table.pump().splitlines()[-1].strip()) <= 60, 10)
    table.wait_for("2 running")
    started.kill("job-server")
    wait_until(lambda: started.run("jobs", "cancel", jobs[1]).returncode == 0, 20)
    table.wait_for("1 running, 0 waiting, 2 ended")
    size = len(table.raw)
    table.child.sendintr()
    assert table.end() == 130
    assert b"\x1b[?25h\x1b[?1049l" in table.raw[size:]
    assert b"stopped watching; the jobs go on" in table.raw[size:]
    started.ok("jobs", "cancel", jobs[2])


def test_the_live_table_sends_little(started: Instance, table: Terminal) -> None:
    """However much happens, a frame comes at most four times a second, and holds only what changed."""
    table.wait_for("0 running, 0 waiting, 0 ended")
    size, began = len(table.raw), time.monotonic()
    started.ok("jobs", "submit", "--count", "60", "--wait", "--", "true", timeout=120)
    table.wait_for("0 running, 0 waiting")
    frames, took_s = table.raw[size:].count(b"\x1b[1;1H"), time.monotonic() - began
    assert frames <= 4 * took_s + 2, (frames, took_s)
    assert b"\x1b[2J" not in table.raw[size:]


def test_a_terminated_table_gives_the_terminal_back(started: Instance, table: Terminal) -> None:
    """A kill without a word from the keyboard leaves no hidden cursor and no foreign page."""
    table.wait_for("jobs: ")
    size = len(table.raw)
    table.child.kill(signal.SIGTERM)
    assert table.end() == 143
    assert b"\x1b[?25h\x1b[?1049l" in table.raw[size:]


def test_a_table_that_is_quit_gives_the_terminal_back(started: Instance, table: Terminal) -> None:
    """Ctrl-\\ is a key, too: it leaves no hidden cursor and no foreign page."""
    table.wait_for("jobs: ")
    size = len(table.raw)
    table.child.sendcontrol("\\")
    assert table.end() == 131
    assert b"\x1b[?25h\x1b[?1049l" in table.raw[size:]


def test_retry_and_list(started: Instance) -> None:
    """A job that ended runs again under another id; the filters of the list find both, and only these."""
    path = started.job_file("job_command: 'echo again; exit 4'\nname: flaky\n")
    job_id = started.ok("jobs", "submit", "--file", path).strip()
    assert started.wait(job_id)["exit_code"] == 4
    done = started.run("jobs", "retry", job_id, "--follow")
    assert (done.returncode, done.stdout) == (4, b"again\n")
    done = started.run("jobs", "retry", job_id, "--wait", "--json", "--request-id", "once")
    assert done.returncode == 4
    again = json.loads(done.stdout)
    assert again["retry_of"] == job_id
    assert started.ok("jobs", "retry", job_id, "--request-id", "once").strip() == again["id"]
    started.ok("jobs", "submit", "--wait", "--", "true")
    listed = json.loads(started.ok("jobs", "list", "--state", "failed", "--since", "1h", "--json"))
    assert len(listed) == 3
    assert listed[0]["id"] == again["id"]
    after = again["create_time"]
    since = json.loads(started.ok("jobs", "list", "--since", after, "--json"))
    assert [job["id"] for job in since][-1] == again["id"]
    assert json.loads(started.ok("jobs", "list", "--label", "gpu=none", "--json")) == []
    for moment in ("soon", "0001-01-01", "9999-12-31T23:59:59-14:00"):
        started.fails("jobs", "list", "--since", moment, code=2)
    assert started.ok("jobs", "list", "--since", "9999-12-31T23:59:59Z", "--json") == "[]\n"
    running = started.submit("sleep 100")
    started.fails("jobs", "retry", running, code=1)
    started.ok("jobs", "cancel", running)


def test_the_others_import_nothing_of_it(started: Instance) -> None:
    """Whoever submits and reads logs does not pay for the commands that explain."""
    job_id = started.submit("true")
    started.wait(job_id)
    for args in (("jobs", "submit", "--", "true"), ("jobs", "logs", job_id)):
        modules = modules_of(started, *args)
        unwanted = (
            "jobs_why",
            "jobs_watch",
            "jobs_list",
            "jobs_retry",
            "screen",
            "gc",
            "leftovers",
        )
        assert not {f"daemon.cli.{name}" for name in unwanted} & modules
        assert "daemon.job_client.explanation_dicts" not in modules
