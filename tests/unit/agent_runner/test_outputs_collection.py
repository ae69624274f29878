"""What is kept of a job's outputs, and what is said of the rest; in the scripted sandbox."""

from __future__ import annotations

import errno
import hashlib
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from agent_runner.attempt_control import AttemptControl, StopReason
from agent_runner.job_spec import JobSpec
from agent_runner.outcome import OutputFile
from agent_runner.output_patterns import Patterns
from agent_runner.outputs.after_attempt import Collected, collect_outputs
from agent_runner.outputs.collection import Bounds, OutputsTaker
from agent_runner.outputs.staging import StagedOutputs
from agent_runner.outputs_spec import OutputsPlace, OutputsSpec
from sandbox.base import SandboxRequest
from sandbox.scripted import ScriptedProvider, ScriptedSandbox


@pytest.fixture
async def sandbox():
    provider = ScriptedProvider()
    made = await provider.create(SandboxRequest(name="test-1"))
    made.files = {"src/dist/a": b"aaa", "src/dist/b": b"bb", "src/dist/c": b"aaa", "other": b"x"}
    yield made
    await provider.close()


async def collected(
    sandbox: ScriptedSandbox,
    folder: Path,
    *paths: str,
    control: AttemptControl | None = None,
    secret: str = "\0",
    **bounds: Any,
) -> Collected:
    spec = JobSpec(argv=("x",), outputs=OutputsSpec(paths=paths, **bounds))
    place = OutputsPlace(folder / "staged", max_bytes=1000, max_files=100)
    return await collect_outputs(
        sandbox,
        spec,
        place,
        lambda text: text.replace(secret, "***"),
        control or AttemptControl(),
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_equal_contents_are_staged_once(sandbox, tmp_path):
    found = await collected(sandbox, tmp_path, "dist/**")

    assert found.record.files == (
        OutputFile("dist/a", sha256(b"aaa"), 3, 0o644),
        OutputFile("dist/b", sha256(b"bb"), 2, 0o644),
        OutputFile("dist/c", sha256(b"aaa"), 3, 0o644),
    )
    assert (found.record.error, found.lines) == ("", [])
    staged = {path.name: path.read_bytes() for path in (tmp_path / "staged").iterdir()}
    assert staged == {sha256(b"aaa"): b"aaa", sha256(b"bb"): b"bb"}


async def test_names_that_no_walk_gives_are_refused(tmp_path):
    """An archive can hold any name, and a folder that changes while it is read can give one twice; the first counts."""
    taker = OutputsTaker(
        patterns=Patterns.of(("**",)),
        bounds=Bounds(max_bytes=100, max_files=100),
        staged=StagedOutputs(tmp_path / "staged"),
        mask=str,
        ended=str,
    )
    names = ["../x", "/etc/x", "a//b", "./a", "", "a/..", "a", "a"]
    for content, name in enumerate(names):
        taker.take(name, 0o644, 1, BytesIO(bytes([content])).read)

    assert [(file.name, file.sha256) for file in taker.files] == [("a", sha256(b"\6"))]
    assert taker.problems[-1] == "a: it came a second time"
    assert taker.problem_count == len(names) - 1


async def test_patterns_without_a_file_are_a_line_of_the_log(sandbox, tmp_path):
    found = await collected(sandbox, tmp_path, "dist/*.whl", "none-s3cret")

    assert found.record.files == ()
    assert found.record.error == ""
    assert found.lines == [
        "runner: outputs: no file matches 'dist/*.whl'",
        "runner: outputs: no file matches 'none-s3cret'",
    ]


async def test_bytes_are_bounded_together(sandbox, tmp_path):
    """Smaller files after one that is too large are kept; the job may only ask for less than the operator allows."""
    sandbox.files["src/dist/a"] = b"a" * 7

    found = await collected(sandbox, tmp_path, "dist/**", max_bytes=6)
    assert [file.name for file in found.record.files] == ["dist/b", "dist/c"]
    assert found.record.error == "dist/a: with it there are more than 6 bytes"
    assert found.lines == [f"runner: outputs: not kept: {found.record.error}"]
    sandbox.files["src/dist/a"] = b"a" * 1001
    found = await collected(sandbox, tmp_path, "dist/**", max_bytes=1 << 40)
    assert "more than 1,000 bytes" in found.record.error


async def test_files_are_bounded(sandbox, tmp_path):
    found = await collected(sandbox, tmp_path, "dist/**", max_files=2)

    assert len(found.record.files) == 2
    assert found.record.error == "the rest is left out: there are more than 2 files"
    assert not found.cut_short


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("x\udcff", "x\\udcff: its name is not UTF-8"),
        ("n" * 513, "longer than 512 bytes"),
        ("a-s3cret\n", "a-***\\n: its name holds a secret"),
    ],
)
async def test_names_that_are_not_recorded(sandbox, tmp_path, name, why):
    """The record, the log and later files are made by them."""
    sandbox.files[f"src/{name}"] = b"1"

    found = await collected(sandbox, tmp_path, "*", secret="s3cret")

    assert why in found.record.error
    assert "s3cret" not in "".join([found.record.error, *found.lines])
    assert name not in [file.name for file in found.record.files]


async def test_many_problems_are_counted(sandbox, tmp_path):
    sandbox.files |= {f"src/x\udcff{number}": b"1" for number in range(15)}

    found = await collected(sandbox, tmp_path, "*")

    assert found.record.error.endswith("; and 5 more")


async def test_a_full_disk_keeps_nothing(sandbox, tmp_path):
    """Its room is needed for the end of the attempt; a file in the place of the folder stands for it."""
    (tmp_path / "staged").write_bytes(b"")

    found = await collected(sandbox, tmp_path, "dist/**")

    assert found.record.files == ()
    assert found.record.error == "the agent-runner's disk does not take them: Not a directory"


async def test_a_folder_that_cannot_be_read(sandbox, tmp_path):
    """The attempt keeps its end, and what came before."""
    original = sandbox.collect

    async def collect_in_part(path, taker):
        await original(path, taker)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    sandbox.collect = collect_in_part

    found = await collected(sandbox, tmp_path, "dist/**")

    assert len(found.record.files) == 3
    assert found.record.error.startswith("the rest is left out: it cannot be read: Input/output")


@pytest.mark.parametrize(
    ("before", "now", "cut"),
    [
        (None, StopReason.CANCEL, True),
        (StopReason.CANCEL, StopReason.CANCEL, False),
        (StopReason.CANCEL, StopReason.INTERRUPT, True),
    ],
)
async def test_a_stop_ends_it(sandbox, tmp_path, before, now, cut):
    """One that came before it does not: a cancelled job's outputs are kept too."""
    control = AttemptControl()
    if before is not None:
        control.stop(before, 10)
    original = sandbox.collect

    async def stop_then_collect(path, taker):
        control.stop(now, 10)
        await original(path, taker)

    sandbox.collect = stop_then_collect

    found = await collected(sandbox, tmp_path, "dist/**", control=control)

    assert found.cut_short is cut
    assert bool(found.record.files) is not cut
    assert ("stopped" in found.record.error) is cut
