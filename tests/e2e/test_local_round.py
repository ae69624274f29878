"""Local mode as a person uses it: start, submit, watch, stop; twice, and when there is nothing to do."""

from __future__ import annotations

import json
import re
import socket
import subprocess

from tests.e2e.instance import PROCESSES, Instance, alive


def test_a_whole_round_leaves_nothing_running(instance: Instance) -> None:
    """Start shows three ready processes in order, a followed job prints its log, stop ends everything."""
    lines = instance.start().splitlines()
    shown = [line for line in lines if " pid " in line]
    assert [re.split(r"\s+pid\s+", line)[0].strip() for line in shown] == [
        "daemon",
        "job server",
        "agent-runner",
    ]
    assert "2 slots, sandbox: " in shown[2]
    assert re.search(r"127\.0\.0\.1:\d+, unix socket", shown[1])
    pids = instance.pids()

    done = instance.run(
        "jobs", "submit", "--follow", "--", "/bin/sh", "-c", "echo one; echo two >&2; exit 3"
    )
    assert done.stdout == b"one\ntwo\n"
    assert done.returncode == 3

    instance.ok("local", "stop")
    assert not any(alive(pid) for pid in pids)
    assert not list(instance.state.glob("*.pid"))
    instance.wait_gone()


def test_starting_twice_is_harmless(started: Instance) -> None:
    """A second start says so with the pids, changes nothing and exits 0."""
    before = started.pids()
    done = started.run("local", "start", "--no-input")
    assert done.returncode == 0
    assert b"already running" in done.stderr
    assert all(str(pid).encode() in done.stderr for pid in before)
    assert started.pids() == before


def test_two_starts_at_once_make_one_instance(instance: Instance) -> None:
    """Whoever loses the race waits and then says that it is already running."""
    args = ("local", "start", "--no-input", "--listen", "127.0.0.1:0")
    first, second = instance.popen(*args), instance.popen(*args)
    assert first.wait(60) == 0
    assert second.wait(60) == 0
    assert instance.status()["processes"]["daemon"]["state"] == "RUNNING"


def test_stop_without_a_daemon_says_so(instance: Instance) -> None:
    """Stopping nothing, and asking about nothing, is exit 3 and one line."""
    assert "not running" in instance.fails("local", "stop", code=3)
    assert "not running" in instance.fails("local", "status", code=3)
    assert "not running" in instance.fails("jobs", "list", code=3)


def test_status_has_the_documented_keys(started: Instance) -> None:
    """Others build on the JSON of status; its keys are those of the design."""
    status = started.status()
    assert status["mode"] == "local"
    assert set(status["endpoints"]) == {"tcp", "unix"}
    assert set(status["processes"]) == set(PROCESSES)
    for process in status["processes"].values():
        assert set(process) == {
            "pid",
            "state",
            "start_time",
            "restarts",
            "last_exit",
            "memory_bytes",
        }
        assert process["state"] == "RUNNING"
        assert process["restarts"] == 0
        assert process["memory_bytes"] > 1_000_000
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", process["start_time"])


def test_restart_makes_three_new_processes(instance: Instance) -> None:
    """Restart keeps the secrets without asking and serves jobs again."""
    instance.extra_env["ANTHROPIC_API_KEY"] = "sk-test-" + "r" * 24
    instance.start()
    before = instance.pids()
    del instance.extra_env["ANTHROPIC_API_KEY"]
    done = instance.run("local", "restart", "--listen", "127.0.0.1:0")
    assert done.returncode == 0, done.stderr.decode() + instance.tails()
    after = instance.pids()
    assert not set(before) & set(after)
    assert not any(alive(pid) for pid in before)
    job = instance.job_file(
        "job_command: 'test ${#KEY} -eq 32 && echo $KEY'\nenv: {KEY: '${secret:local:ANTHROPIC_API_KEY}'}\n"
    )
    done = instance.run("jobs", "submit", "--file", job, "--follow")
    assert (done.returncode, done.stdout) == (0, b"***\n"), done.stderr.decode()


def test_a_taken_port_is_one_clear_line(instance: Instance) -> None:
    """Start fails with exit 1, names the port and what to do, and leaves nothing running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = instance.run("local", "start", "--no-input", "--listen", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr.decode()
    assert "--listen" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    instance.wait_gone()
    assert not list(instance.state.glob("*.pid"))


def test_an_unusable_state_directory_is_one_clear_line(instance: Instance) -> None:
    """A file where the directory should be: exit 1, one line that names it."""
    instance.state.write_text("in the way")
    error = instance.fails("local", "start", "--no-input", code=1)
    assert str(instance.state) in error
    assert len(error.splitlines()[-1]) > 0
    instance.state.unlink()


def test_logs_of_the_processes_can_be_read(started: Instance) -> None:
    """Each process has its own log of JSON lines."""
    for process in PROCESSES:
        text = started.ok("local", "logs", process)
        assert text.strip(), process
        assert all(json.loads(line)["process"] for line in text.splitlines())


def test_a_reader_that_leaves_is_a_broken_pipe(started: Instance) -> None:
    """`runner jobs logs | head`: no message, and the exit code that a shell shows for SIGPIPE."""
    job_id = started.submit("seq 1000000")
    started.wait(job_id)
    with started.popen(
        "jobs", "logs", job_id, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == b"1\n"
        running.stdout.close()
        assert running.wait(20) == 141
        assert running.stderr.read() == b""


def test_config_show_names_origins(instance: Instance) -> None:
    """Flags beat the environment, the environment beats the file, the file beats the defaults."""
    config = instance.home / ".config" / "runner"
    config.mkdir(parents=True)
    (config / "config.toml").write_text("[local]\nslots = 3\ndrain_timeout = '5s'\n")
    instance.extra_env["RUNNER_SLOTS"] = "4"
    shown = json.loads(instance.ok("config", "show", "--json"))
    assert shown["local.slots"] == {"value": 4, "origin": "environment RUNNER_SLOTS"}
    assert shown["local.drain_timeout"]["value"] == 5.0
    assert shown["local.drain_timeout"]["origin"].startswith("file ")
    assert shown["local.listen"]["origin"] == "default"
    (config / "config.toml").write_text("[local]\nslotz = 3\n")
    assert "did you mean 'local.slots'" in instance.fails("config", "show", code=2)
