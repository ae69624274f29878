"""What the command of an attempt finds before it starts: its sources, and the outputs of jobs that it follows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agent_runner.job_spec import JobSpec
from agent_runner.outcome import SourceRecord
from agent_runner.source.places import SourceFolder
from agent_runner.source.preparation import Preparation
from sandbox.base import Sandbox

if TYPE_CHECKING:
    from agent_runner.outputs.handing_on import InputsSource


async def put_material(
    spec: JobSpec,
    sandbox: Sandbox,
    source_dir: Path,
    credentials: Mapping[str, str],
    inputs: InputsSource | None,
) -> SourceRecord:
    """Put all of it into a sandbox; called once per attempt that has any.

    Raises:
        SourceError: Something of it is not to be had.
    """
    folder = SourceFolder(source_dir)
    record = await Preparation(folder=folder, sandbox=sandbox, credentials=credentials).run(spec)
    if spec.inputs:
        from agent_runner.outputs.handing_on import hand_on  # noqa: PLC0415 - few jobs have any

        await hand_on(inputs, folder, sandbox)
    return record
