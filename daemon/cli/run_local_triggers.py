"""What ``run-local`` does with the jobs that a job triggers: names them, writes them as job files, or runs them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent_runner.errors import TriggersRefusedError
from agent_runner.workflow_spec import ANY_FAILED
from daemon.cli.output import note, printable, state_of
from daemon.errors import UsageError

if TYPE_CHECKING:
    from agent_runner.job_spec import JobSpec
    from agent_runner.outcome import Outcome
    from agent_runner.triggers.graph import Node
    from daemon.cli.run_local_place import Place
    from daemon.cli.secret_search import SecretSearch

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
MAX_STEM_CHARS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerFlags:
    """What the command line says; see ``trigger_options``."""

    folder: Path | None
    auto_continue: bool
    max_parallel: int


def trigger_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--triggers-dir``, ``--auto-continue`` and ``--max-parallel``, as ``triggers``."""

    @click.option(
        "--triggers-dir",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help="Write the jobs that it triggers as job files into DIR.",
    )
    @click.option(
        "--auto-continue",
        is_flag=True,
        help="Run the jobs that it triggers too; exit with the worst exit code.",
    )
    @click.option(
        "--max-parallel",
        type=click.IntRange(1, 64),
        default=2,
        show_default=True,
        help="With --auto-continue: jobs that run at once.",
    )
    @functools.wraps(command)
    def with_triggers(
        *args: Any,
        triggers_dir: Path | None,
        auto_continue: bool,
        max_parallel: int,
        **kwargs: Any,
    ) -> Any:
        if triggers_dir is not None and auto_continue:
            raise UsageError("--triggers-dir writes what --auto-continue would run: give one")
        flags = TriggerFlags(
            folder=triggers_dir, auto_continue=auto_continue, max_parallel=max_parallel
        )
        return command(*args, triggers=flags, **kwargs)

    return with_triggers


def run_with_triggered(  # noqa: PLR0913 - as the command
    ctx: click.Context,
    place: Place,
    search: SecretSearch,
    flags: TriggerFlags,
    *,
    quiet: bool,
    outputs_dir: Path,
) -> int:
    """Run a job and whatever it triggers; return the worst exit code.

    Raises:
        SecretNeededError: A reference of the job has no value; nothing was run.
    """
    from daemon.cli.crew_run import CrewRun, worst_code  # noqa: PLC0415 - few runs need it
    from daemon.jobs.ids import new_job_id  # noqa: PLC0415
    from daemon.jobs.models import NewJob  # noqa: PLC0415

    # There are no jobs of other ids here.
    spec = replace(place.spec, depends_on=(), condition="")
    job = NewJob(id=new_job_id(), spec=spec, request_id=None, payload_sha256="")
    run = CrewRun(
        state_of(ctx),
        search,
        max_parallel=flags.max_parallel,
        quiet=quiet,
        place=place,
        outputs_dir=outputs_dir,
    )
    return worst_code(run.run([job], lambda _: None))


def after_run(spec: JobSpec, job_id: str, outcome: Outcome, flags: TriggerFlags) -> Outcome:
    """Write or name the jobs that a job has triggered; return its end, a failed one if they cannot be accepted.

    Raises:
        OSError: A file cannot be written.
    """
    if outcome.triggers is None:
        return outcome
    from daemon.jobs.workflows import failed  # noqa: PLC0415 - few jobs trigger any
    from daemon.triggers.following import graphs_in, triggered_spec  # noqa: PLC0415
    from daemon.triggers.inheritance import pinned  # noqa: PLC0415
    from daemon.triggers.node_job import files_by_name  # noqa: PLC0415

    try:
        files = files_by_name(dict(outcome.triggers.files), spec)
        graphs = graphs_in(outcome.triggers, (spec.name, job_id))
        nodes = [node for graph in graphs for node in graph.nodes]
        parent = pinned(spec, outcome.source)
        specs = [triggered_spec(node, files, parent) for node in nodes]
    except TriggersRefusedError as error:
        return failed(outcome, f"triggers.json: {error}")
    if flags.folder is None:
        names = ", ".join(printable(node.name) for node in nodes)
        if names:
            note(
                f"runner: triggers {names} (--triggers-dir writes them, --auto-continue runs them)"
            )
    else:
        late = impossible(nodes, succeeded=outcome.succeeded)
        for name in sorted(late):
            note(f"runner: not written: {printable(name)}, whose condition cannot come true")
        both = [
            (node, one) for node, one in zip(nodes, specs, strict=True) if node.name not in late
        ]
        _write_all(both, spec.name, flags.folder)
    return outcome


def impossible(nodes: Sequence[Node], *, succeeded: bool) -> set[str]:
    """Return the jobs that can never start after their parent has ended; nodes come after those that they depend on."""
    from agent_runner.triggers.graph import PARENT  # noqa: PLC0415 - few jobs trigger any

    late: set[str] = set()
    for node in nodes:
        ends = [succeeded if name == PARENT else None for name in node.depends_on]
        ends += [False for name in node.depends_on if name in late]
        if (not node.condition and False in ends) or (node.condition == ANY_FAILED and all(ends)):
            late.add(node.name)
    return late


def _write_all(jobs: Sequence[tuple[Node, JobSpec]], parent: str, folder: Path) -> None:
    from daemon.jobfile.writing import job_file_text  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for node, spec in jobs:
        stem = _stem(node.name, taken)
        path = folder / f"{stem}.yaml"
        temporary = folder / f".{stem}.new"
        temporary.unlink(missing_ok=True)
        with temporary.open("x", encoding="utf-8") as file:
            file.write(job_file_text(spec, _comment(node, parent)))
        temporary.replace(path)
        note(f"runner: wrote {printable(str(path))}")


def _stem(name: str, taken: set[str]) -> str:
    """Return a file name for a job; no two jobs get the same."""
    base = _UNSAFE.sub("-", name).strip(".-")[:MAX_STEM_CHARS] or "job"
    stem, number = base, 2
    while stem in taken:
        stem, number = f"{base}-{number}", number + 1
    taken.add(stem)
    return stem


def _comment(node: Node, parent: str) -> str:
    from agent_runner.triggers.graph import PARENT  # noqa: PLC0415

    waits = ", ".join(printable(name if name != PARENT else parent) for name in node.depends_on)
    condition = node.condition or "all_success"
    text = f"Triggered by {printable(parent)}.\nTo be run after: {waits} ({condition})"
    inputs = ", ".join(printable(name if name != PARENT else parent) for name in node.inputs)
    return f"{text}\nIt wants their outputs below /job/inputs: {inputs}" if inputs else text
