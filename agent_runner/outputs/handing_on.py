"""Puts the outputs of jobs into the sandbox of one that follows them, before its command is started."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from agent_runner.backoff import Backoff
from agent_runner.client import DaemonClient, Lease
from agent_runner.errors import (
    InputMissingError,
    LeaseLostError,
    ServerRefusedError,
    ServerUnavailableError,
    SourceError,
)
from agent_runner.job_inputs import INPUTS_DIR, InputPiece, folder_name
from agent_runner.outcome import OutputFile
from agent_runner.outputs.restore import parts_of
from agent_runner.source.places import SourceFolder, remove_tree
from sandbox.base import Sandbox
from sandbox.env import SANDBOX_MARKER
from sandbox.errors import TransferRefusedError
from sandbox.filesystem.settled import in_thread

MAX_TRIES = 200
"""How often inputs are asked for: with the back-off, minutes in which a server may be away."""


class InputsSource(Protocol):
    """Where the inputs of one attempt come from."""

    async def put(self, folder: Path) -> None:
        """Put the outputs of each job into a folder of its name; called once, with an empty folder.

        Raises:
            SourceError: They are not to be had.
            OSError: They cannot be written.
        """
        ...


async def hand_on(source: InputsSource | None, folder: SourceFolder, sandbox: Sandbox) -> None:
    """Put the inputs of an attempt into its sandbox; called once per attempt that has some.

    Raises:
        SourceError: They are not to be had, or cannot be copied.
    """
    if source is None:
        raise SourceError(
            "inputs: there are no other jobs here; run the pipeline that this job is of"
        )
    try:
        async with folder.place(f"inputs-{sandbox.base_env[SANDBOX_MARKER]}") as place:
            whole = place / INPUTS_DIR
            await asyncio.to_thread(whole.mkdir)
            await source.put(whole)
            await sandbox.upload(whole, INPUTS_DIR)
    except TransferRefusedError as error:
        raise SourceError(f"inputs: {error}") from error
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        raise SourceError(f"inputs: they cannot be prepared: {name}{error.strerror}") from error


class ServerInputs:
    """The inputs of a leased attempt, from the job server."""

    def __init__(self, client: DaemonClient, lease: Lease) -> None:
        self._client = client
        self._lease = lease

    async def put(self, folder: Path) -> None:
        """Fetch them; waits for a server that is away, or has trouble with its disk, but not for ever."""
        backoff = Backoff()
        for tries_left in reversed(range(MAX_TRIES)):
            try:
                async with contextlib.aclosing(self._client.read_inputs(self._lease)) as pieces:
                    return await write_pieces(pieces, folder)
            except (InputMissingError, LeaseLostError, ServerRefusedError) as error:
                raise SourceError(str(error)) from error
            except ServerUnavailableError as error:
                if not tries_left:
                    raise SourceError(f"inputs: they are not to be had: {error}") from error
                await in_thread(partial(_emptied, folder))
                await backoff.wait()
        return None


async def write_pieces(pieces: AsyncIterator[InputPiece], folder: Path) -> None:
    """Write inputs as they come; a file counts when it is whole and has the digest that was recorded.

    Raises:
        ServerUnavailableError: They ended too early, or a content is another.
        OSError: One cannot be written.
    """
    job, file = folder, None
    try:
        async for piece in pieces:
            if piece.job_name or piece.file is not None:
                _finish(file)
                file = None
            if piece.job_name:
                job = folder / folder_name(piece.job_name)
                await asyncio.to_thread(job.mkdir)
            if piece.file is not None:
                file = await asyncio.to_thread(_Incoming, job, piece.file)
            if piece.data and file is not None:
                await asyncio.to_thread(file.write, piece.data)
        _finish(file)
        file = None
    finally:
        if file is not None:
            file.close()


def _finish(file: _Incoming | None) -> None:
    if file is not None:
        file.close()
        if not file.is_whole:
            raise ServerUnavailableError("an input did not come whole")


class _Incoming:
    """One file that is written."""

    def __init__(self, folder: Path, file: OutputFile) -> None:
        path = folder.joinpath(*parts_of(file.name))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = file
        self._digest = hashlib.sha256()
        self._stream: BinaryIO = path.open("xb")
        path.chmod(file.mode & 0o777)

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self._digest.update(data)
        self._stream.write(data)

    def close(self) -> None:
        """Let go of it. Idempotent."""
        self._stream.close()

    @property
    def is_whole(self) -> bool:
        """Tell whether it is what was recorded."""
        return self._digest.hexdigest() == self._file.sha256


def _emptied(folder: Path) -> None:
    remove_tree(folder)
    folder.mkdir()
