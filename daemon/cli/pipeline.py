"""``runner pipeline``: several jobs of one file, run here or submitted as one, and drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import click

from daemon.cli.job_input import JobDocument, read_job_file
from daemon.cli.output import note, print_json, printable, state_of
from daemon.cli.secret_search import SecretSearch, search_options
from daemon.errors import UsageError

if TYPE_CHECKING:
    from daemon.jobs.models import Job, NewJob
    from daemon.pipelines.pipeline_file import Pipeline

MAX_PARALLEL = 64


@click.group()
def pipeline() -> None:
    """Run or draw several jobs of one file."""


@pipeline.command(epilog="Example: runner pipeline run pipeline.yaml --max-parallel 4")
@click.argument("file", metavar="FILE")
@click.option("--submit", is_flag=True, help="Submit all jobs or none to the job server instead.")
@click.option("--wait", is_flag=True, help="With --submit: wait for the end of all jobs.")
@click.option(
    "--max-parallel",
    type=click.IntRange(1, MAX_PARALLEL),
    default=2,
    show_default=True,
    help="Jobs that run at once here.",
)
@click.option("--var", "given", metavar="NAME=VALUE", multiple=True, help="Set a variable.")
@click.option("--quiet", "-q", is_flag=True, help="Print the masked output and nothing else.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the record at the end, and the output of jobs on standard error.",
)
@search_options
@click.option(
    "--allow-unsandboxed", is_flag=True, help="Run without walls if this host can build none."
)
@click.pass_context
def run(  # noqa: PLR0913 - one per option
    ctx: click.Context,
    *,
    file: str,
    submit: bool,
    wait: bool,
    max_parallel: int,
    given: Sequence[str],
    quiet: bool,
    as_json: bool,
    search: SecretSearch,
    allow_unsandboxed: bool,
) -> int:
    """Run the jobs of FILE, each after those that it waits for; exit with the worst exit code."""
    from agent_runner.hardening import harden  # noqa: PLC0415 - as late as it is needed

    if wait and not submit:
        raise UsageError("--wait is for --submit: a run here always ends with its jobs")
    document = read_job_file(file)
    loaded = _loaded(document, to_run_here=not submit)
    variables = loaded.variables | _variables(given)
    if submit:
        from daemon.cli.pipeline_submit import submit_pipeline  # noqa: PLC0415

        return submit_pipeline(ctx, loaded, variables, wait=wait, as_json=as_json)
    harden()
    return _run_here(
        ctx,
        loaded,
        variables,
        search,
        max_parallel=max_parallel,
        quiet=quiet,
        as_json=as_json,
        allow_unsandboxed=allow_unsandboxed,
        outputs_dir=document.base_dir / "outputs",
    )


@pipeline.command(epilog="Example: runner pipeline graph pipeline.yaml --format svg > pipeline.svg")
@click.argument("file", metavar="[FILE]", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "svg"]),
    default="text",
    show_default=True,
)
@click.option(
    "--run", "run_id", metavar="ID", help="Draw this run (default: the last one, if any)."
)
@click.option("--json", "as_json", is_flag=True, help="Print the jobs as JSON.")
@click.pass_context
def graph(
    ctx: click.Context, *, file: str | None, form: str, run_id: str | None, as_json: bool
) -> None:
    """Draw the jobs of FILE, or of a run, with their states and times."""
    from daemon.cli.crew_run import pipelines_dir  # noqa: PLC0415
    from daemon.pipelines.picture import picture  # noqa: PLC0415
    from daemon.pipelines.record import Records  # noqa: PLC0415

    records = Records(pipelines_dir(state_of(ctx)))
    loaded = None if file is None else _loaded(read_job_file(file), to_run_here=False)
    if loaded is not None and run_id is None and not records.has(loaded.name):
        rows = rows_of_file(loaded)
    else:
        record = records.load(run_id, None if loaded is None else loaded.name)
        if record["submitted"]:
            from daemon.cli.pipeline_submit import refreshed  # noqa: PLC0415

            record = refreshed(ctx, record)
        rows = record["jobs"]
    if as_json:
        print_json(rows)
    else:
        print(picture(rows, form))


def rows_of_file(loaded: Pipeline) -> list[dict[str, Any]]:
    """Return what is to be drawn of a pipeline that has not run."""
    return [
        {
            "id": node.name,
            "name": node.name,
            "state": None,
            "depends_on": list(node.depends_on),
            "condition": node.condition or "all_success",
        }
        for node in loaded.graph.nodes
    ]


def _loaded(document: JobDocument, *, to_run_here: bool) -> Pipeline:
    from daemon.pipelines.pipeline_file import load_pipeline  # noqa: PLC0415 - pydantic

    return load_pipeline(
        document.content, document.name, document.base_dir, to_run_here=to_run_here
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _variables(given: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError("--var must be NAME=VALUE")
        try:
            # NaN and Infinity are no JSON; as texts they are what was typed.
            found[name] = json.loads(value, parse_constant=_no_constant)
        except ValueError:
            found[name] = value
    return found


def _run_here(  # noqa: PLR0913 - as the command
    ctx: click.Context,
    loaded: Pipeline,
    variables: dict[str, Any],
    search: SecretSearch,
    *,
    as_json: bool,
    allow_unsandboxed: bool,
    **options: Any,
) -> int:
    from daemon.cli.crew_run import CrewRun, pipelines_dir, worst_code  # noqa: PLC0415
    from daemon.cli.run_local_place import PlaceFlags, choose_place  # noqa: PLC0415
    from daemon.jobs.ids import new_job_id  # noqa: PLC0415
    from daemon.pipelines.record import Records, new_record, rows_of  # noqa: PLC0415

    run_id = new_job_id()
    records = Records(pipelines_dir(state_of(ctx)))

    def changed(jobs: Sequence[Job]) -> None:
        records.save(new_record(run_id, loaded.name, submitted=False, jobs=rows_of(jobs)))

    if not options["quiet"]:
        note(f"runner: pipeline {printable(loaded.name)}, run {run_id}")
    new_jobs = new_jobs_of(loaded, variables, run_id)
    flags = PlaceFlags(sandbox="filesystem")
    place = choose_place(new_jobs[0].spec, flags, allow_unsandboxed=allow_unsandboxed)
    run = CrewRun(state_of(ctx), search, place=place, output_is_json=as_json, **options)
    jobs = run.run(new_jobs, changed)
    if as_json:
        print_json(records.load(run_id))
    return worst_code(jobs)


def new_jobs_of(loaded: Pipeline, variables: dict[str, Any], run_id: str) -> list[NewJob]:
    """Return the jobs of a pipeline, each after those that it depends on, as one workflow."""
    from agent_runner.workflow_spec import WorkflowSpec, vars_json  # noqa: PLC0415
    from daemon.jobs.ids import new_job_id  # noqa: PLC0415
    from daemon.jobs.models import NewJob  # noqa: PLC0415

    workflow = WorkflowSpec(id=run_id, name=loaded.name, vars_json=vars_json(variables))
    ids = {node.name: new_job_id() for node in loaded.graph.nodes}
    return [
        NewJob(
            id=ids[node.name],
            spec=replace(
                loaded.specs[node.name],
                depends_on=tuple(ids[name] for name in node.depends_on),
                inputs=node.inputs,
                condition=node.condition,
                workflow=workflow,
            ),
            request_id=None,
            payload_sha256="",
        )
        for node in loaded.graph.nodes
    ]
