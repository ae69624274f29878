"""`runner server` and `runner agent-runner`: foreground processes without a daemon, as staging runs them."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.staging import Staging
from tests.ports import quiet_port
from tests.slow_link import SlowLink
from tests.waiting import wait_until

VALUE = "canary-7d1f9a3b5c"
PASSWORD = "correct horse battery"


@pytest.fixture
def staging() -> Iterator[Staging]:
    """An installation that is not started; nothing of it is left afterwards."""
    root = Path(tempfile.mkdtemp(prefix="runner-stg-"))
    made = Staging(root)
    yield made
    made.close()
    for state in (made.client.state, root / "agent"):
        made.client.state = state
        made.client.wait_gone()
        assert not made.client.workspaces(), "workspaces were left behind"
        assert not made.client.spooled(), "the spool was not emptied"
    shutil.rmtree(root)


def test_a_job_runs_and_both_leave_in_good_order(staging: Staging):
    """Ready means serving; the pid is that of the process that was started; TERM and Ctrl-C end it with 0."""
    server = staging.server()
    with grpc.insecure_channel(staging.address) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    agent = staging.agent("agent", "--labels", "zone=b", "--slots", "3").start().wait_ready()
    client = staging.client
    client.job_file("job_command: echo here\nlabels: {zone: b}\n")
    job = client.wait(client.ok("jobs", "submit", "--file", f"{staging.root}/job.yaml").strip())
    assert (job["state"], job["sandbox"]["kind"]) == ("SUCCEEDED", "filesystem")
    assert client.log(job["id"]) == b"here\n"
    for service, name in ((server, "job-server"), (agent, "agent-runner")):
        assert f'"pid": {service.pid},' in (service.state / f"{name}.pid").read_text()
        words = Path(f"/proc/{service.pid}/cmdline").read_bytes()
        assert staging.token_file.read_bytes().strip() not in words
        assert {line["process"] for line in service.lines()} == {name}
    agent.signal(signal.SIGINT)
    assert agent.wait() == 0
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    for service in (server, agent):
        assert service.hear() == ["READY=1", "STATUS=ready", "STOPPING=1"]
        assert not list(service.state.glob("*.pid"))
    assert not (server.state / "endpoints.json").exists()
    assert (
        staging.token_file.read_text().strip() not in server.log.read_text() + agent.log.read_text()
    )


def test_what_is_missing_or_taken_is_one_line(staging: Staging):
    """Each with its exit code, before anything is started."""
    client = staging.client
    staging.server()
    said = client.fails("server", code=7)
    assert "job-server pid" in said
    assert "--state-dir" in said
    for command in ("status", "stop"):
        said = client.fails("local", command, code=3)
        assert "job-server pid" in said
        assert "foreground" in said
        assert "local stop" not in said
    assert "--server" in client.fails(
        "--state-dir", f"{staging.root}/agent", "agent-runner", code=2
    )
    words = ("--state-dir", f"{staging.root}/agent", "agent-runner", "--server")
    assert "--token-file" in client.fails(*words, staging.address, code=8)
    assert "no-such" in client.fails(*words, staging.address, "--token-file", "/no-such", code=2)
    token = str(staging.token_file)
    assert "in clear" in client.fails(
        "--state-dir", f"{staging.root}/b", "server", "--listen", "0.0.0.0:0", code=2
    )
    assert "clear" in client.fails(*words, "192.0.2.1:50051", "--token-file", token, code=2)
    refused = staging.root / "wrong"
    refused.write_text("not-the-token\n")
    refused.chmod(0o600)
    wrong = staging.agent("agent", "--token-file", str(refused)).start()
    assert wrong.wait() == 1
    assert "not-the-token" not in wrong.log.read_text()
    assert wrong.lines()[-1]["action"] == "start_failed"


def test_an_agent_runner_waits_for_a_server_that_is_away(staging: Staging):
    """At its start and later: it never leaves, and what ran meanwhile is reported when the server is back."""
    server = staging.server("--listen", f"127.0.0.1:{quiet_port()}")
    agent = staging.agent()
    server.kill()
    agent.start()
    wait_until(lambda: "server_away" in agent.actions(), 30, agent.tail)
    server.start().wait_ready()
    agent.wait_ready()
    client = staging.client
    job_id = client.submit("echo one; sleep 3; echo two")
    client.wait_log(job_id, b"one")
    server.kill()
    server.start().wait_ready()
    job = client.wait(job_id)
    assert (job["state"], job["attempt"]) == ("SUCCEEDED", 1)
    assert client.log(job_id) == b"one\ntwo\n"
    assert agent.alive
    assert agent.actions().count("server_away") == 2


def test_signals_mean_what_they_mean_to_a_daemon(staging: Staging):
    """The first lets a job end, the second gives it back; after a drain that takes too long that comes by itself."""
    staging.server()
    client = staging.client
    agent = staging.agent().start().wait_ready()
    short = client.submit("echo up; sleep 2; echo end")
    client.wait_log(short, b"up")
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0
    assert client.job(short)["state"] == "SUCCEEDED"
    agent.start().wait_ready()
    long = client.submit("echo up; sleep 1000")
    client.wait_log(long, b"up")
    agent.signal(signal.SIGTERM)
    wait_until(lambda: agent.actions().count("draining") == 2, 30, agent.tail)
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0
    job = client.job(long)
    assert (job["state"], job["end_reason"]) == ("PENDING", None)
    hasty = staging.agent("hasty", "--drain-timeout", "0.1").start().wait_ready()
    client.wait_running(long)
    hasty.signal(signal.SIGTERM)
    assert hasty.wait() == 0
    assert client.job(long)["state"] == "PENDING"
    client.ok("jobs", "cancel", long)


def test_a_killed_agent_runner_starts_again_where_it_was(staging: Staging):
    """Its stale files are no obstacle, what its job left is gone, and the job runs again."""
    staging.server()
    client = staging.client
    agent = staging.agent().start().wait_ready()
    job_id = client.submit('echo $RUNNER_ATTEMPT; [ "$RUNNER_ATTEMPT" = 2 ] || sleep 1000')
    client.wait_log(job_id, b"1")
    agent.kill()
    agent.start().wait_ready()
    job = client.wait(job_id)
    assert (job["state"], job["attempt"]) == ("SUCCEEDED", 2)


def test_a_server_that_is_far_away(staging: Staging):
    """A connection may take longer than the longest pause between two tries, for agent-runners and for clients."""
    staging.server()
    with SlowLink(staging.address, 0.6) as link:
        agent = staging.service(
            "agent", "agent-runner", "--server", link.address, "--token-file", str(staging.token_file),
            "--name", "agent", MODE="local",
        )  # fmt: skip
        agent.start().wait_ready()
        elsewhere = ("--server", link.address, "--token-file", str(staging.token_file))
        assert staging.client.ok(*elsewhere, "jobs", "list", "--json").strip() == "[]"
        job = staging.client.wait(staging.client.submit("true"))
        agent.end()
    assert job["state"] == "SUCCEEDED"


def test_a_server_without_its_state_directory_stops(staging: Staging):
    """It does not accept what nobody would find again."""
    server = staging.server()
    server.state.rename(staging.root / "elsewhere")
    assert server.wait() == 1
    assert "state_dir_lost" in server.actions()
    assert server.hear()[-1] == "STOPPING=1"


def test_the_name_of_another_is_taken_over_once(staging: Staging):
    """The later start wins; the earlier leaves with a code after which a service manager does not start it again."""
    staging.server()
    first = staging.agent().start().wait_ready()
    second = staging.service("second", *first.words, MODE="local").start().wait_ready()
    assert first.wait() == 7
    assert second.alive


def test_values_of_the_store_reach_jobs_and_no_log(staging: Staging):
    """By the password in a file; a value that was set a moment ago counts; ${secret:local:NAME} is the store's, too."""
    staging.server()
    client = staging.client
    password = staging.root / "password"
    password.write_text(PASSWORD + "\n")
    password.chmod(0o600)
    client.ok("secrets", "init", "--password-file", str(password))
    agent = staging.agent("agent", "--password-file", str(password)).start().wait_ready()
    for path, key in (("npm/tokens", "NPM"), ("local", "API")):
        given = ("--password-file", str(password), "--stdin")
        client.ok("secrets", "set", path, key, *given, stdin=f"{VALUE}-{key}".encode())
    client.job_file(
        "job_command: echo $NPM $API; echo ${#NPM}\n"
        "env: {NPM: '${secret:npm/tokens:NPM}', API: '${secret:local:API}'}\n"
    )
    job = client.wait(client.ok("jobs", "submit", "--file", f"{staging.root}/job.yaml").strip())
    assert client.log(job["id"]) == f"*** ***\n{len(VALUE) + 4}\n".encode()
    client.job_file("job_command: 'true'\nenv: {NPM: '${secret:npm/tokens:NONE}'}\n")
    missing = client.wait(client.ok("jobs", "submit", "--file", f"{staging.root}/job.yaml").strip())
    assert missing["end_reason"] == "SECRET_MISSING"
    locked = staging.agent("locked", "--labels", "here=yes").start().wait_ready()
    agent.end()
    job = client.wait(client.ok("jobs", "retry", missing["id"]).strip())
    assert "--password-file" in job["message"]
    for service in (agent, locked):
        assert VALUE not in service.log.read_text()
        assert PASSWORD not in service.log.read_text()
