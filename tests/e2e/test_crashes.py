"""kill -9 of each process, at rest and in the middle of a job; and PID files that lie."""

from __future__ import annotations

import json
import os
import subprocess

import psutil

from daemon.paths import StateDir
from tests.e2e.instance import Instance, alive
from tests.waiting import wait_until

KEY = "sk-test-" + "c" * 24
KEY_JOB = "job_command: 'test ${#KEY} -eq 32'\nenv: {KEY: '${secret:local:ANTHROPIC_API_KEY}'}\n"


def wait_restarted(instance: Instance, process: str, old_pid: int) -> None:
    def restarted() -> bool:
        found = instance.status()["processes"][process]
        return found["pid"] not in (None, old_pid) and found["state"] == "RUNNING"

    wait_until(restarted, 60, instance.tails)


def test_agent_runner_comes_back_with_the_same_secrets(instance: Instance) -> None:
    """kill -9 of the agent-runner: it is restarted, its secrets too, and the next job runs."""
    instance.extra_env["ANTHROPIC_API_KEY"] = KEY
    instance.start()
    old = instance.kill("agent-runner")
    wait_restarted(instance, "agent-runner", old)
    process = instance.status()["processes"]["agent-runner"]
    assert process["restarts"] == 1
    assert "9" in str(process["last_exit"])
    job = instance.job_file(KEY_JOB)
    assert instance.run("jobs", "submit", "--file", job, "--wait").returncode == 0


def test_a_job_of_a_dead_agent_runner_runs_again(started: Instance) -> None:
    """The attempt is lost, its processes are gone, the job runs again and both logs are there."""
    name = f"1000.{os.getpid()}"
    job_id = started.submit(f"echo begin; [ $RUNNER_ATTEMPT != 1 ] || sleep {name}; echo end")
    started.wait_log(job_id, b"begin")

    def sleepers() -> set[int]:
        found = psutil.process_iter(["pid", "cmdline"])
        return {p.pid for p in found if ["sleep", name] == p.info["cmdline"]}

    before = wait_until(sleepers, 20, "the job sleeps")
    started.kill("agent-runner")
    ended = started.wait(job_id)
    assert ended["state"] == "SUCCEEDED", ended
    assert ended["attempt"] == 2
    assert [a["end_reason"] for a in ended["attempts"]] == ["LOST", "EXITED"]
    assert ended["attempts"][0]["log"]["truncated"] == "agent_died"
    assert started.log(job_id) == b"begin\nend\n"
    assert not any(alive(pid) for pid in before)


def test_a_result_survives_the_server(started: Instance) -> None:
    """kill -9 of the server while a job runs: the job goes on, its whole log and its result arrive."""
    job_id = started.submit("for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.3; done; exit 7")
    started.wait_log(job_id, b"line 2")
    old = started.kill("job-server")
    wait_restarted(started, "job-server", old)
    ended = started.wait(job_id)
    assert (ended["state"], ended["exit_code"], ended["attempt"]) == ("FAILED", 7, 1), ended
    assert started.log(job_id) == b"".join(b"line %d\n" % i for i in range(1, 9))


def test_a_follower_survives_the_server(started: Instance) -> None:
    """A client that follows a log sees every byte once, over a restart of the server."""
    job_id = started.submit("for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.3; done")
    started.wait_log(job_id, b"line 1")
    follower = started.popen("jobs", "logs", job_id, "--follow", stdout=subprocess.PIPE)
    started.kill("job-server")
    out, _ = follower.communicate(timeout=60)
    assert out == b"".join(b"line %d\n" % i for i in range(1, 9))
    assert follower.returncode == 0


def test_a_result_survives_a_server_that_dies_during_a_stop(started: Instance) -> None:
    """kill -9 of the server while `stop` lets a job end: the result is there after the next start."""
    job_id = started.submit("echo begin; while [ ! -e go ]; do sleep 0.1; done; echo end; exit 7")
    started.wait_log(job_id, b"begin")
    workspaces = StateDir(started.state, started.state).workspaces
    (source,) = workspaces.glob(f"agent-runner*/{job_id}-1/job/src")
    stop = started.popen("local", "stop", "--drain-timeout", "120", stderr=subprocess.PIPE)

    def draining() -> bool:
        return started.status()["processes"]["agent-runner"]["state"] == "STOPPING"

    wait_until(draining, 20, started.tails)
    old = started.kill("job-server")
    wait_restarted(started, "job-server", old)
    (source / "go").touch()
    _, errors = stop.communicate(timeout=60)
    assert stop.returncode == 0, errors
    started.start()
    ended = started.job(job_id)
    assert (ended["state"], ended["exit_code"], ended["attempt"]) == ("FAILED", 7, 1), ended
    assert started.log(job_id) == b"begin\nend\n"


def test_a_server_that_cannot_start_any_more_is_given_up_and_explained(started: Instance) -> None:
    """Its database is garbage: `status` says FATAL, why, and the end of its log; the others live; stop works."""
    pids = started.pids()
    for name in ("runner.db-wal", "runner.db-shm"):
        (started.state / name).unlink(missing_ok=True)
    garbage = started.state / "garbage"
    garbage.write_bytes(b"no database at all\n" * 1000)
    garbage.replace(started.state / "runner.db")
    started.kill("job-server")

    def given_up() -> bool:
        return started.status()["processes"]["job-server"]["state"] == "FATAL"

    wait_until(given_up, 60, started.tails)
    found = started.status()["processes"]["job-server"]
    assert found["pid"] is None
    assert "5 quick deaths" in found["reason"]
    assert "runner.db" in found["log_tail"]
    shown = started.ok("local", "status")
    assert "FATAL" in shown
    assert "job server was given up: 5 quick deaths" in shown
    assert "runner.db" in shown.partition("was given up")[2]
    assert alive(pids[0])
    assert alive(pids[2])
    started.ok("local", "stop", "--now")
    started.wait_gone()


def test_nothing_outlives_the_daemon(started: Instance) -> None:
    """kill -9 of the daemon: within 10 s no process is left, not even one of a running job; a new start works."""
    job_id = started.submit("trap '' TERM; echo running; sleep 600 & wait")
    started.wait_log(job_id, b"running")
    pids = started.pids()
    started.kill("daemon")
    wait_until(
        lambda: not any(alive(pid) for pid in pids) and not started.processes_of_state(),
        10,
        started.tails,
    )
    started.start()
    job = started.job(job_id)
    assert job["state"] in ("PENDING", "RUNNING"), "the interrupted job waits or runs again"
    started.ok("jobs", "cancel", job_id)
    assert started.wait(job_id)["state"] == "CANCELLED"


def test_all_three_at_once(started: Instance) -> None:
    """kill -9 of everything: the next start cleans up and the accepted job still ends."""
    job_id = started.submit("sleep 1; echo done")
    started.wait_running(job_id)
    started.kill_all()
    started.start()
    ended = started.wait(job_id)
    assert ended["state"] == "SUCCEEDED", ended
    assert started.log(job_id) == b"done\n"


def test_a_stale_pid_file_is_never_signalled(instance: Instance) -> None:
    """PID files that name a foreign process: stop says nothing runs, start works, the bystander lives."""
    bystander = subprocess.Popen(["/bin/sleep", "300"])
    try:
        instance.start()
        kept = {path.name: json.loads(path.read_bytes()) for path in instance.state.glob("*.pid")}
        assert len(kept) == 3
        instance.ok("local", "stop")
        for name, identity in kept.items():
            path = instance.state / name
            path.write_text(json.dumps({**identity, "pid": bystander.pid}))
            path.chmod(0o600)
        instance.fails("local", "stop", code=3)
        assert bystander.poll() is None
        instance.start()
        instance.ok("local", "stop")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_torn_pid_file_is_no_obstacle(instance: Instance) -> None:
    """An empty or garbled PID file is as good as none."""
    instance.state.mkdir(mode=0o700)
    (instance.state / "daemon.pid").write_bytes(b"")
    (instance.state / "job-server.pid").write_bytes(b"{\xff")
    (instance.state / "agent-runner.pid").write_text('{"pid": 1}')
    instance.fails("local", "stop", code=3)
    instance.start()
    assert instance.status()["processes"]["daemon"]["state"] == "RUNNING"


def test_a_frozen_job_is_stopped_by_now(started: Instance) -> None:
    """`stop --now` ends a job that ignores TERM; it was interrupted, so it runs again at the next start."""
    job_id = started.submit("trap '' TERM; echo running; while :; do sleep 1; done")
    started.wait_log(job_id, b"running")
    started.ok("local", "stop", "--now")
    started.wait_gone()
    started.start()
    assert started.job(job_id)["state"] in ("PENDING", "RUNNING")
    started.ok("jobs", "cancel", job_id)
    ended = started.wait(job_id)
    assert (ended["state"], ended["end_reason"]) == ("CANCELLED", "CANCELLED")
