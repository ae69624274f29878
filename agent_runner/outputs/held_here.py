"""Holds the outputs of jobs that run here together, for those that follow them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

from agent_runner.job_inputs import chosen, folder_name
from agent_runner.outcome import OutputsRecord
from agent_runner.outputs.restore import OutputsFolder, content_of
from agent_runner.outputs_spec import OutputsPlace
from agent_runner.source.places import SourceFolder, remove_tree
from sandbox.filesystem.settled import in_thread


class HeldOutputs:
    """The outputs of one run of jobs; made by ``held_outputs``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._records: dict[str, OutputsRecord] = {}
        self._owners: dict[str, str] = {}

    def folder_of(self, name: str) -> str:
        """Return what the folder of a job is called that a person gets: another one for each name."""
        plain = folder = folder_name(name)
        number = 2
        while self._owners.setdefault(folder, name) != name:
            folder, number = f"{plain}-{number}", number + 1
        return folder

    def of(self, job_id: str, inputs: Sequence[str], jobs: Sequence[tuple[str, str]]) -> JobHands:
        """Return what one job takes and leaves; called per attempt.

        Args:
            job_id: Of the job.
            inputs: What it asks for.
            jobs: Id and name of each job that it depends on.
        """
        return JobHands(self, job_id, inputs, jobs)

    async def keep(self, job_id: str, outputs: OutputsRecord, place: OutputsPlace) -> None:
        """Take the contents of one attempt, in place of those of an earlier one.

        Raises:
            OSError: They cannot be moved.
        """
        target = self._folder / job_id
        if self._records.pop(job_id, None) is not None:
            await in_thread(partial(remove_tree, target))
        if outputs.files:
            await in_thread(partial(place.folder.rename, target))
            self._records[job_id] = outputs

    def put(self, job_id: str, folder: Path) -> None:
        """Write the outputs of a job into a new folder; runs on a thread.

        Raises:
            OSError: One cannot be written.
        """
        folder.mkdir()
        outputs = self._records.get(job_id, OutputsRecord())
        written = OutputsFolder(folder, replace=False)
        for file in outputs.files:
            written.put(file, content_of(self._folder / job_id / file.sha256))


class JobHands:
    """What one job takes from others, as an ``InputsSource``, and what it leaves for them."""

    def __init__(
        self,
        held: HeldOutputs,
        job_id: str,
        inputs: Sequence[str],
        jobs: Sequence[tuple[str, str]],
    ) -> None:
        self._held = held
        self._job_id = job_id
        self._inputs = inputs
        self._jobs = jobs

    async def put(self, folder: Path) -> None:
        """Put the outputs of each job that it asks for into a folder of its name."""
        names = dict(self._jobs)
        for job_id in chosen(self._inputs, self._jobs):
            target = folder / folder_name(names[job_id])
            await in_thread(partial(self._held.put, job_id, target))

    def folder_of(self, name: str) -> str:
        """Return what its folder is called that a person gets."""
        return self._held.folder_of(name)

    async def keep(self, outputs: OutputsRecord, place: OutputsPlace) -> None:
        """Leave the outputs of its attempt for others.

        Raises:
            OSError: They cannot be moved.
        """
        await self._held.keep(self._job_id, outputs, place)


@contextlib.asynccontextmanager
async def held_outputs(source_dir: Path, name: str) -> AsyncIterator[HeldOutputs]:
    """Give a place for the outputs of one run, which is removed afterwards.

    Args:
        source_dir: Where places are made, as for sources; what killed processes left there is removed.
        name: Unique among the runs.
    """
    async with SourceFolder(source_dir).place(f"run-{name}") as folder:
        yield HeldOutputs(folder)
