"""Runs several jobs here for a command: finds their secrets, prints their output, tells of each end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from agent_runner.errors import SecretMissingError
from agent_runner.job_spec import JobSpec
from agent_runner.secret_refs import SecretRef, refs_of, require
from agent_runner.secret_source import GivenSecrets
from daemon.cli.output import note, printable, seconds_text, show_warnings
from daemon.cli.run_local import write_past_buffer
from daemon.cli.run_local_place import Place
from daemon.cli.run_local_secrets import find_secrets, look_up_secrets
from daemon.cli.terminal_filter import shown_on
from daemon.cli.verdict import describe, exit_status
from daemon.clock import SystemClock
from daemon.errors import SecretNeededError
from daemon.paths import StateDir

if TYPE_CHECKING:
    from agent_runner.crew import Crew
    from daemon.cli.secret_search import SecretSearch
    from daemon.jobs.models import Job, NewJob

DEFAULT_PARALLEL = 2
MAX_PARALLEL = 64


class CrewRun:
    """One invocation that runs jobs here."""

    def __init__(  # noqa: PLR0913 - what the command line says
        self,
        state: StateDir,
        search: SecretSearch,
        *,
        max_parallel: int,
        quiet: bool,
        place: Place,
        outputs_dir: Path,
        output_is_json: bool = False,
    ) -> None:
        """Take what the command line says; each job's outputs go into a folder of its name below ``outputs_dir``."""
        self._outputs_dir = outputs_dir
        self._state = state
        self._search = search
        self._max_parallel = max_parallel
        self._quiet = quiet
        self._place = place
        self._values: dict[SecretRef, str] = {}
        self._told: set[str] = set()
        self._stream = sys.stderr if output_is_json else sys.stdout

    def run(self, jobs: Sequence[NewJob], changed: Callable[[Sequence[Job]], None]) -> list[Job]:
        """Run jobs and what they trigger; return all of them after their ends. Called once per process.

        Raises:
            SecretNeededError: A reference of a job has no value; nothing was run.
            OSError: The output could not be written.
        """
        everything = _referring_to([ref for job in jobs for ref in refs_of(job.spec)])
        self._values = find_secrets(everything, self._search)
        self.prepare()
        return asyncio.run(self._run(jobs, changed))

    def prepare(self) -> None:
        """Make the folders of the state, and this process one that can start others; called once."""
        from sandbox.process import apply_process_defaults  # noqa: PLC0415

        self._state.prepare()
        apply_process_defaults()
        show_warnings()

    def find_more_secrets(self, spec: JobSpec) -> None:
        """Find the secrets of one more job without asking anybody.

        Raises:
            SecretNeededError: A reference has no value.
        """
        missing = [ref for ref in refs_of(spec) if ref not in self._values]
        found, why = look_up_secrets(missing, self._search, may_ask=False)
        try:
            require(missing, found, why)
        except SecretMissingError as error:
            raise SecretNeededError(str(error)) from None
        self._values |= found

    async def _run(
        self, jobs: Sequence[NewJob], changed: Callable[[Sequence[Job]], None]
    ) -> list[Job]:
        async with self.crew() as members:
            return await self.run_in(members, jobs, changed)

    def crew(self) -> AbstractAsyncContextManager[Crew]:
        """Open the sandboxes; called once per process."""
        from agent_runner.crew import crew  # noqa: PLC0415 - as late as they are needed
        from agent_runner.one_shot import OneShot  # noqa: PLC0415

        place = self._place
        shot = OneShot(
            job_id="",
            spec=_referring_to(()),
            secrets=GivenSecrets({}),
            workspaces=self._state.workspaces,
            source_dir=self._state.sources,
            owner_label=self._state.id,
            kind=place.kind,
            container=place.container_settings(self._search),
            outputs_dir=self._outputs_dir,
            max_output_bytes=int(str(place.config["outputs.max_bytes"].value)),
            cache_dir=self._state.results,
            tier=str(place.config["local.sandbox_tier"].value),
            allow_plain=place.config["local.allow_unsandboxed"].value is True,
        )
        shown = shown_on(self._stream)
        return crew(shot, lambda data: write_past_buffer(shown(data), self._stream), lambda _: None)

    async def run_in(
        self, members: Crew, jobs: Sequence[NewJob], changed: Callable[[Sequence[Job]], None]
    ) -> list[Job]:
        """Run jobs and what they trigger in sandboxes that are open; may be called for many at once."""
        from daemon.pipelines.local_run import LocalRun  # noqa: PLC0415

        def told(found: Sequence[Job]) -> None:
            self._tell(found)
            changed(found)

        run = LocalRun(
            members,
            SystemClock(),
            max_parallel=self._max_parallel,
            secrets=self._secrets_of,
            changed=told,
        )
        return await run.run(jobs)

    def _secrets_of(self, spec: JobSpec) -> GivenSecrets:
        missing = [ref for ref in refs_of(spec) if ref not in self._values]
        why = ""
        if missing:  # of a triggered job: nobody is asked in the middle of a run
            found, why = look_up_secrets(missing, self._search, may_ask=False)
            self._values |= found
        return GivenSecrets(self._values, why)

    def _tell(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if self._quiet or not job.state.final or job.id in self._told:
                continue
            self._told.add(job.id)
            reason = None if job.end_reason is None else str(job.end_reason)
            end = describe(reason, job.exit_code, job.message)
            took = ""
            if job.start_us is not None and job.end_us is not None:
                took = f" ({seconds_text((job.end_us - job.start_us) / 1e6)})"
            note(f"runner: {printable(job.spec.name)}: {printable(end)}{took}")


def worst_code(jobs: Sequence[Job]) -> int:
    """Return the exit code for jobs that were run together: 0 if all did what they should, else the highest.

    A job that was skipped because nothing had failed did what it should; one that could not start because another
    failed says nothing new.
    """
    codes = []
    for job in jobs:
        reason = None if job.end_reason is None else str(job.end_reason)
        if reason in ("SKIPPED", "DEPENDENCY_FAILED"):
            continue
        codes.append(exit_status(reason, job.exit_code))
    return max(codes, default=0)


def pipelines_dir(state: StateDir) -> Path:
    """Return the folder of the records of pipelines."""
    return state.root / "pipelines"


def _referring_to(refs: Sequence[SecretRef]) -> JobSpec:
    """Return a job that needs all of some secrets, so that all that are missing are named at once."""
    env = {f"SECRET_{number}": str(ref) for number, ref in enumerate(dict.fromkeys(refs))}
    return JobSpec(argv=("true",), env=env)
