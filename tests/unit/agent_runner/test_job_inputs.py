"""Inputs of a job: their rules, and how they come from a server whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent_runner.client import Lease
from agent_runner.errors import (
    InputMissingError,
    InvalidJobSpecError,
    ServerUnavailableError,
    SourceError,
)
from agent_runner.grpc_client import GrpcDaemonClient
from agent_runner.job_inputs import InputPiece
from agent_runner.job_spec import JobSpec
from agent_runner.outcome import OutputFile
from agent_runner.outputs.handing_on import ServerInputs, write_pieces
from agent_runner.outputs.held_here import HeldOutputs
from agent_runner.outputs_spec import CacheSpec
from agent_runner.server_link import ServerLink

JOB = JobSpec(argv=("true",), depends_on=("a1", "b2"))
CONTENT = b"content of a file"
FILE = OutputFile("dist/x", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), 0o755)


@pytest.mark.parametrize(
    ("job", "problem"),
    [
        (replace(JOB, inputs=("a",), depends_on=()), "inputs: needs depends_on"),
        (replace(JOB, inputs=("a",), cache=CacheSpec()), "inputs: cannot be together with cache"),
        (replace(JOB, inputs=("a", "b", "c")), "inputs: lists more jobs than depends_on"),
        (replace(JOB, inputs=("a", "a")), "inputs: lists a job twice"),
        (replace(JOB, inputs=("a/b", "a b")), "'a/b' and 'a b' would share the folder a-b"),
        (replace(JOB, inputs=("..", "/")), "'..' and '/' would share the folder job"),
        (replace(JOB, inputs=("",)), "inputs.0: is not the name of a job"),
        (replace(JOB, inputs=("a", "\0")), "inputs.1: is not the name of a job"),
        (replace(JOB, inputs=("\ud800",)), "inputs.0: is not the name of a job"),
        (replace(JOB, inputs=("x" * 201,)), "inputs.0: is not the name of a job"),
    ],
)
def test_a_broken_rule_is_named(job: JobSpec, problem: str) -> None:
    """In one line, by the name of the field."""
    with pytest.raises(InvalidJobSpecError) as caught:
        job.validate()
    assert problem in str(caught.value)


def test_a_person_gets_a_folder_for_each_name(tmp_path: Path) -> None:
    """Names that differ only in what no folder can have do not share one; a job that runs again has its own."""
    held = HeldOutputs(tmp_path)
    names = ["a b", "a-b", "a/b", ".", "..", "a b", "a-b"]
    folders = ["a-b", "a-b-2", "a-b-3", "job", "job-2", "a-b", "a-b-2"]
    assert [held.folder_of(name) for name in names] == folders


async def pieces(*given: InputPiece) -> AsyncIterator[InputPiece]:
    for one in given:
        yield one


async def test_files_are_written_with_their_modes(tmp_path: Path) -> None:
    """Each job has a folder, also one that left nothing."""
    await write_pieces(
        pieces(
            InputPiece("none"),
            InputPiece("build[0]"),
            InputPiece(file=FILE),
            InputPiece(data=CONTENT[:5]),
            InputPiece(data=CONTENT[5:]),
            InputPiece(file=FILE._replace(name="empty", sha256=hashlib.sha256().hexdigest())),
        ),
        tmp_path,
    )

    written = tmp_path / "build-0" / "dist" / "x"
    assert (written.read_bytes(), written.stat().st_mode & 0o777) == (CONTENT, 0o755)
    assert (tmp_path / "build-0" / "empty").read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build-0", "none"]


class BreakingServer(GrpcDaemonClient):
    """A client whose streams end as a script says; it connects to nothing."""

    def __init__(self, *streams: tuple[InputPiece | Exception, ...]) -> None:
        super().__init__(ServerLink(address="unix:/absent"), "t" * 43, "a", "1")
        self.streams = list(streams)

    async def read_inputs(self, lease: Lease) -> AsyncGenerator[InputPiece, None]:
        for piece in self.streams.pop(0):
            if isinstance(piece, Exception):
                raise piece
            yield piece


WHOLE = (InputPiece("build"), InputPiece(file=FILE), InputPiece(data=CONTENT))
LEASE = Lease("j", 1, "t")


async def test_a_server_that_goes_away_is_asked_again(tmp_path: Path) -> None:
    """From the beginning; what it says for good ends the attempt."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    away = ServerUnavailableError("away")
    client = BreakingServer((away,), (*WHOLE[:2], away), WHOLE[:2], WHOLE)
    await ServerInputs(client, LEASE).put(folder)
    assert (folder / "build" / "dist" / "x").read_bytes() == CONTENT
    assert client.streams == []

    client.streams = [(InputMissingError("inputs: no job 'x'"),)]
    with pytest.raises(SourceError, match="no job 'x'"):
        await ServerInputs(client, LEASE).put(folder)
    await client.close()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ((InputPiece(file=FILE), InputPiece(data=CONTENT[1:])), ServerUnavailableError),
        ((InputPiece(file=FILE), InputPiece("next")), ServerUnavailableError),
        ((InputPiece(file=FILE._replace(name="../x")),), OSError),
        ((InputPiece(file=FILE._replace(name="/etc/x")),), OSError),
        ((InputPiece("build"),), OSError),
    ],
)
async def test_what_is_not_as_recorded_does_not_count(
    tmp_path: Path, given: tuple[InputPiece, ...], error: type[Exception]
) -> None:
    """Neither less, nor another place, nor a job twice."""
    with pytest.raises(error):
        await write_pieces(pieces(InputPiece("build"), *given), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["build"]
