"""kill -9 on the way of a job's outputs: the attempt ends with all of them, and nothing is left on the way."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from runner.v1 import job_pb2, job_service_pb2
from tests.chaos.installation import AGENT, DAEMON, SERVER, Installation
from tests.chaos.side_by_side import side_by_side
from tests.chaos.steps import Step

STEPS = [
    Step("collect", "after", (AGENT,), 2),  # staged, and the end is not in the spool
    Step("outputs-upload", "before", (AGENT,), 1),  # the end is in the spool
    Step("outputs-upload", "after", (AGENT,), 1),  # contents acknowledged, the end not reported
    Step("content-write", "after", (SERVER,), 1),  # a content is there in part
    Step("content-write", "before", (DAEMON,), 1),
]
LINES = 400_000
"""3 MB: several messages."""
SCRIPT = f"mkdir dist; seq {LINES} >dist/a; cp dist/a dist/b; echo x >dist/c; chmod 755 dist/c"
WHOLE = b"".join(b"%d\n" % number for number in range(1, LINES + 1))


def die_at(step: Step) -> None:
    spec = job_pb2.JobSpec(argv=["/bin/sh", "-c", SCRIPT])
    spec.outputs.paths.append("dist/**")
    request = job_service_pb2.SubmitJobRequest(spec=spec, request_id="outputs")
    with Installation(faults=True) as installation, TemporaryDirectory() as folder:
        with installation.armed(step.point, step.moment, *step.victims):
            job_id = installation.client.submit(request).id
        ended = installation.client.wait(job_id)
        assert ended.attempt <= step.attempts, ended
        assert (ended.state, ended.attempts[-1].outputs_error) == (
            job_pb2.JOB_STATE_SUCCEEDED,
            "",
        ), ended
        installation.instance.ok("jobs", "outputs", job_id, "--download", folder)
        found = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in Path(folder).rglob("*")
            if path.is_file()
        }
        assert found == {"dist/a": WHOLE, "dist/b": WHOLE, "dist/c": b"x\n"}
        installation.wait_ready()
        installation.instance.ok("local", "stop")
        assert installation.instance.spooled() == []
        incoming = installation.state / "artifacts" / "incoming"
        assert [*incoming.iterdir()] == []


@pytest.fixture(scope="module")
def raised() -> dict[str, str]:
    return side_by_side({str(step): partial(die_at, step) for step in STEPS}, 3)


@pytest.mark.parametrize("step", [str(step) for step in STEPS])
def test_a_death_on_the_way_of_outputs(step: str, raised: dict[str, str]) -> None:
    assert not raised[step], raised[step]
