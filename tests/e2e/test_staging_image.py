"""The image of staging: built by deploy/Dockerfile with a real engine, run as deploy/compose.yaml runs it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import ahocorasick_rs
import grpc
import pytest

from tests.contract.container_engine import IMAGE
from tests.contract.engine_keeper import EngineConnection, import_image
from tests.e2e.python_root import python_root
from tests.e2e.wheelhouse import fill
from tests.waiting import wait_until

DOCKERFILE = Path(__file__).parents[2] / "deploy" / "Dockerfile"
STAGING = "runner-test:staging"
BOUND_S = 150.0
STATE = "/var/lib/runner/state"


@dataclass
class Engine:
    """The engine that the tests share, as somebody deploys with it."""

    root: Path

    @property
    def socket(self) -> Path:
        return self.root / "sock"

    def call(self, method: str, url: str, body: Any = None) -> bytes:
        """Make a call that must succeed."""
        connection = EngineConnection(self.socket)
        connection.timeout = BOUND_S
        raw = isinstance(body, bytes)
        content = body if raw else json.dumps(body).encode() if body is not None else None
        kind = "application/x-tar" if raw else "application/json"
        with contextlib.closing(connection):
            connection.request(method, url, content, {"Content-Type": kind})
            answer = connection.getresponse()
            said = answer.read()
        assert answer.status < 400, f"{method} {url}: {answer.status} {said!r}"
        return said

    def run(self, name: str, *words: str, binds: list[str], groups: list[str], **env: str) -> str:
        """Start a container of the image, as locked up as compose.yaml has it; return its id."""
        document = {
            "Image": STAGING,
            "Cmd": words,
            "Env": [f"{key}={value}" for key, value in env.items()],
            "HostConfig": {
                "NetworkMode": "host",
                "Binds": binds,
                "GroupAdd": groups,
                "ReadonlyRootfs": True,
                "Tmpfs": {"/tmp": ""},
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges:true"],
            },
        }
        made = json.loads(self.call("POST", f"/containers/create?name={name}", document))
        self.call("POST", f"/containers/{made['Id']}/start")
        return str(made["Id"])

    def exec(self, container: str, *words: str) -> str:
        """Run a command in a container that must succeed; return what it says."""
        asked = {"Cmd": words, "AttachStdout": True, "AttachStderr": True, "Tty": True}
        made = json.loads(self.call("POST", f"/containers/{container}/exec", asked))
        said = self.call("POST", f"/exec/{made['Id']}/start", {"Detach": False, "Tty": True})
        code = json.loads(self.call("GET", f"/exec/{made['Id']}/json"))["ExitCode"]
        assert code == 0, f"{words}: exit {code}\n{said.decode()}\n{self.logs(container)}"
        return said.decode().replace("\r\n", "\n")

    def logs(self, container: str) -> str:
        return self.call("GET", f"/containers/{container}/logs?stdout=1&stderr=1").decode("latin-1")

    def stop(self, container: str) -> int:
        """Stop a container as an operator does; return its exit code."""
        self.call("POST", f"/containers/{container}/stop?t=60")
        state = json.loads(self.call("GET", f"/containers/{container}/json"))["State"]
        return int(state["ExitCode"])


@pytest.fixture(scope="module")
def engine(container_engine: Path, wheel: Path, tmp_path_factory: Any) -> Engine:
    """An engine that has the image of staging."""
    made = Engine(container_engine)
    compiled = [
        path
        for module in (ahocorasick_rs, grpc)
        for path in Path(str(module.__file__)).parent.rglob("*.so")
    ]
    import_image(made.socket, "python", python_root(compiled))
    wheels = tmp_path_factory.mktemp("context") / "wheels"
    wheels.mkdir()
    fill(wheels)
    shutil.copy(wheel, wheels)
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        tar.add(DOCKERFILE, "Dockerfile")
        tar.add(wheels, "wheels")
    arguments = json.dumps({"BASE": "runner-test:python", "PACKAGES": ""})
    query = urlencode({"t": STAGING, "buildargs": arguments, "networkmode": "none", "forcerm": "1"})
    said = made.call("POST", f"/build?{query}", context.getvalue()).decode()
    assert '"error"' not in said, said[-3000:]
    return made


@pytest.fixture
def containers(engine: Engine) -> Iterator[list[str]]:
    """Containers that a test adds to the list; they are removed with their volumes."""
    made: list[str] = []
    yield made
    for container in reversed(made):
        engine.call("DELETE", f"/containers/{container}?force=1&v=1")


# With the building of the image, which takes three quarters of a minute of an idle machine.
@pytest.mark.timeout(400)
def test_a_job_runs_between_containers_of_the_image(
    engine: Engine, containers: list[str], tmp_path: Path
):
    """Server and agent-runner as an unprivileged user on a read-only root; the job in a container beside them."""
    listen = {"RUNNER_SERVER_LISTEN": "127.0.0.1:0"}
    server = engine.run("runner-server", "server", binds=[], groups=[], **listen)
    containers.append(server)
    wait_until(lambda: '"serving"' in engine.logs(server), 60, lambda: engine.logs(server))
    endpoints = wait_until(lambda: _endpoints(engine, server), 20)
    token = tmp_path / "agent-token"
    token.write_text(engine.exec(server, "/bin/cat", f"{STATE}/token"))
    token.chmod(0o400)
    os.chown(token, 10001, 10001)
    binds = [f"{engine.socket}:/var/run/docker.sock", f"{token}:/run/secrets/agent-token:ro"]
    agent = engine.run(
        "runner-agent",
        "agent-runner",
        binds=binds,
        groups=[str(engine.socket.stat().st_gid)],
        RUNNER_SERVER=endpoints["tcp"],
        RUNNER_TOKEN_FILE="/run/secrets/agent-token",
        RUNNER_AGENT_NAME="agent-1",
        RUNNER_IMAGE=IMAGE,
        RUNNER_CONTAINER_PULL="never",
    )
    containers.append(agent)
    words = (
        "runner",
        "jobs",
        "submit",
        "--wait",
        "--json",
        "--",
        "sh",
        "-c",
        "echo $FROM_IMAGE; id -u",
    )
    job = json.loads(engine.exec(server, *words))
    assert (job["state"], job["sandbox"]["kind"]) == ("SUCCEEDED", "container"), engine.logs(agent)
    assert engine.exec(server, "runner", "jobs", "logs", job["id"]) == "yes\n1000\n"
    assert engine.exec(server, "/bin/id", "-u") == "10001\n"
    assert engine.stop(agent) == 0, engine.logs(agent)
    assert engine.stop(server) == 0, engine.logs(server)


def _endpoints(engine: Engine, server: str) -> dict[str, str]:
    with contextlib.suppress(AssertionError):
        document = json.loads(engine.exec(server, "/bin/cat", f"{STATE}/endpoints.json"))
        return dict(document["endpoints"])
    return {}
