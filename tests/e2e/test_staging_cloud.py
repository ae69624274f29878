"""Staging as a whole: TLS, tokens, two agent-runners, jobs in containers, and what dies in the middle of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_runner.server_link import ServerLink
from daemon.job_client.client import JobClient
from daemon.job_client.connection import Server
from daemon.jobs.lifecycle import NOT_RECEIVED_MESSAGE
from tests.contract.container_engine import IMAGE, RunningEngine, mortal_engine
from tests.contract.engine_kinds import missing_part
from tests.e2e.instance import RUNNER
from tests.e2e.staging import Service, Staging
from tests.e2e.test_cloud_mode import containers
from tests.integration.certificates import Authority
from tests.waiting import wait_until

JOBS = 50
LINES = 5
BOUND_S = 150.0
COMMAND = f"""
echo attempt $RUNNER_ATTEMPT of $RUNNER_JOB_ID
for i in $(seq {LINES}); do echo line $i; sleep 0.1; done
echo end
"""
FINAL = {"SUCCEEDED", "FAILED", "CANCELLED"}


@pytest.fixture
def engine() -> Iterator[RunningEngine]:
    """An engine that the test may kill."""
    if reason := missing_part():
        pytest.skip(reason)
    with mortal_engine() as made:
        yield made


class Cloud:
    """A server with TLS, two agent-runners of a project on one engine, and a client of it elsewhere."""

    def __init__(self, root: Path, engine: RunningEngine) -> None:
        self.staging = Staging(root)
        self.engine = engine
        authority = Authority(root)
        identity = authority.identity("server")
        words = ("--tls-certificate", str(identity.certificate), "--tls-key", str(identity.key))
        self.server = self.staging.server("--listen", "localhost:0", *words)
        self._link = ("--tls-ca", str(authority.certificate), "--server", self.staging.address)
        self.agents = [self._agent(name) for name in ("agent-1", "agent-2")]
        token = self._token("client")
        self.cli = (RUNNER, *self._link, "--token-file", str(token), "jobs")
        link = ServerLink(address=self.staging.address, tls_ca=authority.certificate)
        self.client = JobClient(lambda: Server(link, token.read_text().strip()), lambda: True)
        self.env = {k: v for k, v in self.staging.client.env.items() if k != "RUNNER_STATE_DIR"}

    def _token(self, role: str, name: str = "client") -> Path:
        made = self.staging.client.ok("tokens", "create", "--role", role, "--project", "default")
        path = self.staging.root / f"{name}.token"
        path.touch(mode=0o600)
        path.write_text(made)
        return path

    def _agent(self, name: str) -> Service:
        token = self._token("agent", name)
        return self.staging.service(
            name,
            "agent-runner",
            *self._link,
            *("--token-file", str(token), "--name", name, "--slots", "4"),
            MODE="cloud",
            RUNNER_CONTAINER_ENGINE=f"unix://{self.engine.root}/sock",
            RUNNER_IMAGE=IMAGE,
            RUNNER_CONTAINER_PULL="never",
        )

    def submit(self, count: int, command: str) -> None:
        """Submit a shell command several times, as a person elsewhere does."""
        words = ("submit", "--count", str(count), "--", "sh", "-c", command)
        done = subprocess.run(
            [*self.cli, *words], env=self.env, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr.decode() + self.server.tail()

    def all(self) -> list[dict[str, Any]]:
        return self.client.newest([], 1000)

    def ended(self) -> int:
        return sum(job["state"] in FINAL for job in self.all())

    def log(self, job: dict[str, Any]) -> str:
        pieces = self.client.read_log(job["id"], job["attempt"], 0, follow=False)
        return b"".join(piece.data for piece in pieces).decode()

    def restart(self, agent: Service) -> None:
        """Do what a service manager does with one that has died: start it until it stays."""

        def stays() -> bool:
            if not agent.alive:
                agent.start()
            return "READY=1" in agent.hear()

        wait_until(stays, 60, agent.tail)


@pytest.fixture
def cloud(engine: RunningEngine) -> Iterator[Cloud]:
    """All of it, started; nothing of it is left afterwards, in the engine neither."""
    root = Path(tempfile.mkdtemp(prefix="runner-stg-"))
    made = Cloud(root, engine)
    try:
        for agent in made.agents:
            agent.start()
        for agent in made.agents:
            agent.wait_ready()
        yield made
    finally:
        made.client.__exit__(None, None, None)
        made.staging.close()
    assert containers(engine.root) == []
    for name in ("server", "agent-1", "agent-2"):
        made.staging.client.state = root / name
        made.staging.client.wait_gone()
        assert not made.staging.client.workspaces()
        assert not made.staging.client.spooled()
    shutil.rmtree(root)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_everything_is_accounted_for_whatever_dies(cloud: Cloud, tmp_path: Path):
    """Fifty jobs while an agent-runner and the engine are killed: each ends once, successfully, with a whole log."""
    events = tmp_path / "events"
    with events.open("wb") as out:
        watch = subprocess.Popen(
            [*cloud.cli, "watch", "--json"], env=cloud.env, stdout=out, stdin=subprocess.DEVNULL
        )
    try:
        cloud.submit(JOBS, COMMAND)
        wait_until(lambda: cloud.ended() >= 5, BOUND_S, cloud.server.tail)
        cloud.agents[1].kill()
        cloud.restart(cloud.agents[1])
        wait_until(lambda: cloud.ended() >= 20, BOUND_S, cloud.server.tail)
        cloud.engine.kill()
        gone = '"end_reason": "ENGINE_GONE"'
        wait_until(
            lambda: any(gone in agent.log.read_text() for agent in cloud.agents),
            60,
            cloud.agents[0].tail,
        )
        cloud.engine.start()
        wait_until(lambda: cloud.ended() == JOBS, BOUND_S, lambda: str(cloud.all()))
        wait_until(lambda: _ends(events) and sum(_ends(events).values()) >= JOBS, 20)
    finally:
        watch.kill()
        watch.wait()
    jobs = [cloud.client.get(job["id"]) for job in cloud.all()]
    assert {(job["state"], job["exit_code"]) for job in jobs} == {("SUCCEEDED", 0)}
    assert _ends(events) == {job["id"]: 1 for job in jobs}
    for job in jobs:
        assert cloud.log(job) == _log(job)
    # One that was on its way to the agent-runner as that died never began: it was given back, and nothing else was.
    begun = [
        each for job in jobs for each in job["attempts"] if each["message"] != NOT_RECEIVED_MESSAGE
    ]
    attempts = Counter(each["end_reason"] for each in begun)
    assert attempts["EXITED"] == JOBS
    assert attempts["ENGINE_GONE"], attempts
    assert set(attempts) <= {"EXITED", "LOST", "ENGINE_GONE"}


def _ends(events: Path) -> Counter[str]:
    """Return how often a final state of each job was told."""
    lines = events.read_text().splitlines(keepends=True)
    told = [json.loads(line) for line in lines if line.endswith("\n")]
    return Counter(str(event["job_id"]) for event in told if event["state"] in FINAL)


def _log(job: dict[str, Any]) -> str:
    lines = "".join(f"line {number}\n" for number in range(1, LINES + 1))
    return f"attempt {job['attempt']} of {job['id']}\n{lines}end\n"
