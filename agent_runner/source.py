"""Prepares the source of a job inside its sandbox."""

from __future__ import annotations

import asyncio
from pathlib import Path, PurePosixPath

from agent_runner.errors import SourceError
from agent_runner.job_spec import JOB_ROOT, JobSpec
from sandbox.base import Sandbox
from sandbox.errors import TransferRefusedError


async def prepare_source(spec: JobSpec, sandbox: Sandbox) -> None:
    """Put the source at ``code_dir``; called once per attempt, before the command.

    Raises:
        SourceError: It is not there, cannot be read, or holds what cannot be copied.
    """
    if spec.source.kind == "none":
        return
    source = Path(spec.source.path)
    if not await asyncio.to_thread(source.is_dir):
        raise SourceError(f"source_path {source} is not a directory on the agent-runner's host")
    target = PurePosixPath(spec.code_dir).relative_to(JOB_ROOT)
    try:
        await sandbox.upload(source, str(target))
    except TransferRefusedError as error:
        raise SourceError(str(error)) from error
    except OSError as error:
        raise SourceError(f"cannot copy {source}: {error.strerror or error}") from error
