"""Looks whether a command has left something for others. Asked of every job, most of which leave nothing; so it imports nothing."""

from __future__ import annotations

from typing import NamedTuple

from agent_runner.errors import TriggersRefusedError
from agent_runner.job_spec import JobSpec
from agent_runner.workflow_input import OUTPUT_FILE
from sandbox.base import Sandbox
from sandbox.errors import TransferRefusedError

TRIGGERS_FILE = "triggers.json"
MAX_BYTES = 256 << 10


class LeftFiles(NamedTuple):
    """The files as they are, unread."""

    triggers: bytes | None = None
    output: bytes | None = None
    """Of the workflow; not looked for where nobody could use it."""
    refused: tuple[str, str] | None = None
    """The name of one that cannot be read, and why."""

    def check(self) -> None:
        """Check that all could be read.

        Raises:
            TriggersRefusedError: One could not.
        """
        if self.refused is not None:
            raise TriggersRefusedError(*self.refused)


async def look(sandbox: Sandbox, spec: JobSpec) -> LeftFiles:
    """Return what a command has left; called once, after its end.

    Raises:
        SandboxError: The sandbox is broken.
    """
    triggers = output = None
    name = TRIGGERS_FILE
    try:
        triggers = await read(sandbox, name, MAX_BYTES)
        if triggers is not None or spec.workflow is not None:
            name = OUTPUT_FILE
            output = await read(sandbox, name, MAX_BYTES)
    except TransferRefusedError as error:
        return LeftFiles(refused=(name, str(error)))
    return LeftFiles(triggers, output)


async def read(sandbox: Sandbox, path: str, limit_bytes: int) -> bytes | None:
    """Return the content of a file; None if there is none, or an empty one, made for a job that could not make it itself.

    Raises:
        TransferRefusedError: It is a link, too large, or no file.
    """
    try:
        return await sandbox.download(path, limit_bytes) or None
    except FileNotFoundError:
        return None
