"""Outputs of a job that runs here and now: from its sandbox into a folder of the caller."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from agent_runner.outcome import OutputsRecord
from agent_runner.outputs.restore import OutputsFolder, content_of
from agent_runner.outputs_spec import OutputsPlace
from agent_runner.source.places import SourceFolder
from sandbox.filesystem.settled import in_thread


@contextlib.asynccontextmanager
async def staged_here(
    source_dir: Path, name: str, max_bytes: int, cache_dir: Path | None
) -> AsyncIterator[OutputsPlace]:
    """Give a place for the outputs of one attempt, which is removed afterwards.

    Args:
        source_dir: Where places are made, as for sources; what killed processes left there is removed.
        name: Unique among the attempts that run.
        max_bytes: The operator's bound.
        cache_dir: Where results are kept; None keeps and uses none.
    """
    async with SourceFolder(source_dir).place(f"outputs-{name}") as folder:
        yield OutputsPlace(folder / "contents", max_bytes, cache_dir=cache_dir)


async def put_here(outputs: OutputsRecord, place: OutputsPlace, target: Path) -> None:
    """Write collected outputs into a folder, in place of files of the same names; ends before a cancellation is passed on.

    Raises:
        OSError: One cannot be written; names it.
    """

    def put() -> None:
        folder = OutputsFolder(target, replace=True)
        for file in outputs.files:
            folder.put(file, content_of(place.folder / file.sha256))

    await in_thread(put)
