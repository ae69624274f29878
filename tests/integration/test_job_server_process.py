"""The job server as the process that the daemon starts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from daemon.local.first_spawn import SERVER_ARGV
from daemon.supervisor.spawning import SpawnedChild, spawn
from runner.v1 import agent_service_pb2 as agent_pb
from runner.v1 import agent_service_pb2_grpc as agent_rpc
from tests.integration.grpc_server import AUTH, TOKEN, server_config

DEADLINE_S = 20


class Started:
    """A job server process and the daemon's ends of its descriptors."""

    def __init__(self, child: SpawnedChild, life_fd: int, socket: Path) -> None:
        self.child = child
        self.process = child.process
        self.life_fd = life_fd
        self.socket = socket

    def answer(self) -> dict[str, Any]:
        os.set_blocking(self.child.ready_fd, True)
        with os.fdopen(self.child.ready_fd, "rb", closefd=False) as pipe:
            line = pipe.readline()
        value: dict[str, Any] = json.loads(line)
        return value

    def wait(self) -> int:
        return self.process.wait(DEADLINE_S)

    def printed(self) -> bytes:
        """Return what it has printed; asked after its end."""
        return os.read(self.child.output_fd, 1 << 20)


@pytest.fixture
def start(tmp_path) -> Iterator[Any]:
    started: list[Started] = []

    def run(**overrides: Any) -> Started:
        config = server_config(tmp_path, **overrides)
        life_in, life_out = os.pipe()
        child = spawn(SERVER_ARGV, {"PATH": "/usr/bin:/bin"}, life_in)
        os.close(life_in)
        lock = os.memfd_create("lock")
        payload = {"token": TOKEN, "config": config.to_env()}
        child.hand_over(json.dumps(payload).encode(), lock)
        os.close(lock)
        started.append(Started(child, life_out, config.socket))
        return started[-1]

    yield run
    for server in started:
        server.process.end(0)
        for fd in (server.child.ready_fd, server.child.output_fd, server.life_fd):
            if fd >= 0:
                os.close(fd)


def test_ready_means_that_it_answers(start):
    """The facts name the real endpoints, and both answer."""
    server = start()
    facts = server.answer()["ready"]

    assert facts["socket"] == str(server.socket)
    for target in (facts["listen"], f"unix:{facts['socket']}"):
        with grpc.insecure_channel(target) as channel:
            response = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_interrupt_is_ignored_and_terminate_stops(start):
    """A Ctrl-C in the terminal is the daemon's business; TERM ends in good order."""
    server = start()
    server.answer()
    server.process.send_signal(signal.SIGINT)
    with grpc.insecure_channel(f"unix:{server.socket}") as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())

    server.process.send_signal(signal.SIGTERM)

    assert server.wait() == 0
    assert not server.socket.exists()


def test_death_of_the_daemon_ends_it(start):
    """Without agent-runners at once."""
    server = start()
    server.answer()
    os.close(server.life_fd)
    server.life_fd = -1

    assert server.wait() == 0


def test_death_of_the_daemon_waits_for_agent_runners(start):
    """They are let report first; the server goes when the last one has gone."""
    server = start()
    server.answer()
    with grpc.insecure_channel(f"unix:{server.socket}") as channel:
        stub: Any = agent_rpc.AgentServiceStub(channel)
        agent = agent_pb.AgentIdentity(name="agent", incarnation="first")
        stub.RegisterAgent(agent_pb.RegisterAgentRequest(agent=agent, slots=1), metadata=AUTH)
        hello = agent_pb.WorkRequest(hello=agent_pb.WorkHello(agent=agent))
        work = stub.Work(iter([hello, *_never()]), metadata=AUTH)
        next(work)
        os.close(server.life_fd)
        server.life_fd = -1
        assert next(work, None) is None

    assert server.wait() == 0


def _never() -> list[agent_pb.WorkRequest]:
    """Close the client's side of the stream after hello, as an agent-runner that leaves."""
    return []


def test_taken_port_is_told_to_the_daemon(start):
    """One line on the ready descriptor, exit 1, and no traceback in the log."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        server = start(listen=listen)

        assert server.answer() == {
            "error": f"cannot listen on {listen}: the port is taken; "
            "stop the other program or choose --listen"
        }
        assert server.wait() == 1
    assert b"Traceback" not in server.printed()


def test_damaged_database_is_told_to_the_daemon(start, tmp_path):
    """The path is named."""
    (tmp_path / "jobs.db").write_bytes(b"this is no database" * 1000)
    server = start()

    assert str(tmp_path / "jobs.db") in server.answer()["error"]
    assert server.wait() == 1


def test_start_by_hand_is_refused():
    """Without a daemon there is no token; one line says who starts it."""
    result = subprocess.run(
        [sys.executable, "-P", "-m", "daemon.server"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )

    assert result.returncode == 1
    assert "runner local start" in result.stderr
    assert "Traceback" not in result.stderr


def test_start_imports_nothing_that_it_does_not_need():
    """Time to readiness is imports: no job-file parser, no terminal, no key store."""
    heavy = ["pydantic", "ruamel", "rich", "click", "keyring", "prompt_toolkit", "psutil"]
    script = f"import sys, daemon.server.app; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "[]"
