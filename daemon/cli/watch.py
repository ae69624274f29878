"""``runner watch``: runs each job file that comes into a folder, once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from daemon.cli.output import note, printable, state_of
from daemon.cli.run_local_place import PlaceFlags, choose_place
from daemon.cli.secret_search import SecretSearch, search_options
from daemon.errors import DaemonError, UsageError

if TYPE_CHECKING:
    from agent_runner.crew import Crew
    from daemon.cli.crew_run import CrewRun
    from daemon.jobs.models import Job, NewJob
    from daemon.pipelines.watched_folder import Claim, WatchedFolder

LOOK_S = 0.5
INTERRUPTED = 130


@click.command(epilog="Example: runner watch ./jobs-to-run --max-parallel 4")
@click.argument(
    "folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False)
)
@click.option("--once", is_flag=True, help="End when all files that are there now have been run.")
@click.option(
    "--max-parallel",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Files that are run at once.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print the masked output and nothing else.")
@search_options
@click.option(
    "--allow-unsandboxed", is_flag=True, help="Run without walls if this host can build none."
)
@click.pass_context
def watch(  # noqa: PLR0913 - one per option
    ctx: click.Context,
    *,
    folder: Path,
    once: bool,
    max_parallel: int,
    quiet: bool,
    search: SecretSearch,
    allow_unsandboxed: bool,
) -> int:
    """Run each job file that comes into DIR, once, with what it triggers; move it to DIR/done or DIR/failed."""
    from agent_runner.hardening import harden  # noqa: PLC0415 - as late as they are needed
    from agent_runner.job_spec import JobSpec  # noqa: PLC0415
    from daemon.cli.crew_run import CrewRun  # noqa: PLC0415
    from daemon.pipelines.watched_folder import WatchedFolder  # noqa: PLC0415

    place = choose_place(
        JobSpec(argv=("true",)),
        PlaceFlags(sandbox="filesystem"),
        allow_unsandboxed=allow_unsandboxed,
    )
    harden()
    watched = WatchedFolder(folder)
    watched.prepare()
    run = CrewRun(
        state_of(ctx),
        search,
        max_parallel=max_parallel,
        quiet=quiet,
        place=place,
        outputs_dir=folder / "outputs",
    )
    watcher = _Watcher(run, watched, folder, max_parallel)
    if not quiet:
        note(f"runner: watching {printable(str(folder))}")
    run.prepare()
    asyncio.run(watcher.run(once=once))
    return INTERRUPTED if watcher.interrupted else 0


class _Watcher:
    """Runs files as they come, until it is told to stop."""

    def __init__(
        self, run: CrewRun, watched: WatchedFolder, folder: Path, max_parallel: int
    ) -> None:
        self._run = run
        self._watched = watched
        self._folder = folder
        self._max_parallel = max_parallel
        self._running: set[asyncio.Task[None]] = set()
        self.interrupted = False

    async def run(self, *, once: bool) -> None:
        """Claim and run files. Without ``once`` until a signal."""
        for claim in self._watched.abandoned():
            place = claim.finish(
                {"file": claim.name, "state": "FAILED", "end_reason": "LOST"}, succeeded=False
            )
            note(f"runner: {printable(str(place))} was left by a watcher that was killed")
        async with self._run.crew() as members:
            looks = 0
            while not members.stopping.is_set():
                free = self._max_parallel - len(self._running)
                claimed = list(self._watched.claims(free))
                for claim in claimed:
                    self._running.add(asyncio.create_task(self._one(members, claim)))
                looks += 1
                # The first look only learns what is there.
                if once and looks > 1 and not claimed and not self._running:
                    return
                await self._pause(members)
            self.interrupted = True
            await asyncio.gather(*self._running)

    async def _pause(self, members: Crew) -> None:
        stopping = asyncio.ensure_future(members.stopping.wait())
        await asyncio.wait(
            {stopping, *self._running}, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED
        )
        stopping.cancel()
        for task in [task for task in self._running if task.done()]:
            self._running.discard(task)
            task.result()

    async def _one(self, members: Crew, claim: Claim) -> None:
        from daemon.cli.crew_run import worst_code  # noqa: PLC0415

        if members.stopping.is_set():
            claim.give_back()
            return
        try:
            job = await asyncio.to_thread(self._job, claim)
            await asyncio.to_thread(self._run.find_more_secrets, job.spec)
        except DaemonError as error:
            result: dict[str, Any] = {"file": claim.name, "state": "FAILED", "message": str(error)}
            claim.finish(result, succeeded=False)
            note(f"runner: {printable(claim.name)}: {printable(str(error))}")
            return
        jobs = await self._run.run_in(members, [job], lambda _: None)
        claim.finish(_result(claim.name, jobs), succeeded=worst_code(jobs) == 0)

    def _job(self, claim: Claim) -> NewJob:
        from daemon.jobfile.loader import load_job_file  # noqa: PLC0415 - pydantic
        from daemon.jobs.ids import new_job_id  # noqa: PLC0415
        from daemon.jobs.models import NewJob  # noqa: PLC0415

        spec = load_job_file(claim.read(), claim.name, self._folder, to_run_here=True)
        if spec.sandbox.kind == "container":
            raise UsageError("sandbox.kind: a watched folder runs jobs in the filesystem sandbox")
        spec = replace(spec, depends_on=(), condition="")
        return NewJob(id=new_job_id(), spec=spec, request_id=None, payload_sha256="")


def _result(name: str, jobs: Sequence[Job]) -> dict[str, Any]:
    """Return the end of the job of a file, and of what it triggered."""
    from daemon.pipelines.record import rows_of  # noqa: PLC0415

    first, *others = rows_of(jobs)
    return {"file": name, **first, "triggered": others}
