"""``runner validate``: says what is wrong with job files and pipelines, without running or submitting anything."""

from __future__ import annotations

import click

from daemon.cli.job_input import Overlays, overlay_options, read_job_file
from daemon.cli.output import note, print_json, printable
from daemon.errors import InvalidJobFileError, UsageError


@click.command(epilog="Example: runner validate jobs/*.yaml")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@overlay_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def validate(*, files: tuple[str, ...], overlays: Overlays, as_json: bool) -> int:
    """Check job files and pipelines, YAML or JSON; - reads standard input. Exits with 2 if one is none.

    Every problem is one line: FILE:LINE:COLUMN: FIELD: what is wrong. What is only known when the job runs is not
    looked at: whether a source, a secret or an agent-runner is there.
    """
    problems = {name: _problems(name, overlays) for name in files}
    if as_json:
        reports = [
            {"file": name, "valid": not found, "problems": found}
            for name, found in problems.items()
        ]
        print_json(reports[0] if len(files) == 1 else reports)
        return 2 if any(problems.values()) else 0
    for name, found in problems.items():
        for problem in found:
            note(f"runner: {problem}")
        if not found:
            print(f"{printable(name)}: valid")
    return 2 if any(problems.values()) else 0


def _problems(name: str, overlays: Overlays) -> list[str]:
    from daemon.pipelines.pipeline_file import is_pipeline, load_pipeline  # noqa: PLC0415 - pydantic

    try:
        document = read_job_file(name)
        if is_pipeline(document.content, name) and not overlays.documents:
            load_pipeline(document.content, name, document.base_dir, to_run_here=False)
        else:
            overlays.load(document)
    except (InvalidJobFileError, UsageError) as error:
        return str(error).splitlines()
    return []
