"""``runner jobs outputs``: the files that a job left."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from daemon.cli.jobs import JSON_OPTION
from daemon.cli.output import note, print_json, print_table, printable
from daemon.cli.server_choice import connect
from daemon.errors import ArtifactNotFoundError, UsageError

if TYPE_CHECKING:
    from agent_runner.outcome import OutputFile

SHOWN_DIGITS = 12


@click.command(
    epilog="Examples: runner jobs outputs JOB; runner jobs outputs JOB --download out 'dist/*.whl'"
)
@click.argument("job_id", metavar="JOB")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--attempt", type=click.IntRange(1), help="Which try (default: the newest).")
@click.option(
    "--download", "folder", metavar="DIR", help="Write the files into DIR, which is made."
)
@click.option("--force", is_flag=True, help="With --download: replace files that are there.")
@JSON_OPTION
@click.pass_context
def outputs(  # noqa: PLR0913 - one per option
    ctx: click.Context,
    *,
    job_id: str,
    names: tuple[str, ...],
    attempt: int | None,
    folder: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """List or fetch the files that a job left as its outputs; a NAME may be a pattern, as in a job file."""
    if force and folder is None:
        raise UsageError("--force is for --download")
    with connect(ctx) as client:
        number, files, problem = client.outputs(job_id, attempt or 0)
        wanted = _chosen(files, names)
        if folder is not None:
            # After what can be said at once, because it brings in what writes files.
            from agent_runner.outputs.restore import OutputsFolder  # noqa: PLC0415

            target = OutputsFolder(Path(folder), replace=force)
            target.check(wanted)
            for file in wanted:
                target.put(file, client.read_output(job_id, number, file))
    if problem:
        note(f"runner: outputs: not kept: {printable(problem)}")
    if as_json:
        print_json(_document(job_id, number, wanted, problem))
    elif folder is not None:
        size = sum(file.size for file in wanted)
        note(f"runner: {len(wanted)} files, {size:,} bytes, in {folder}")
    else:
        rows = [
            (file.name, str(file.size), f"{file.mode:04o}", file.sha256[:SHOWN_DIGITS])
            for file in wanted
        ]
        print_table(("NAME", "BYTES", "MODE", "SHA256"), rows)


def _chosen(files: list[OutputFile], names: Iterable[str]) -> list[OutputFile]:
    """Return the files that names and patterns mean, all if there are none.

    Raises:
        UsageError: One is no pattern.
        ArtifactNotFoundError: One means no file.
    """
    if not names:
        return files
    from agent_runner.output_patterns import Patterns  # noqa: PLC0415 - few give any

    try:
        patterns = Patterns.of(names)
    except ValueError as error:
        raise UsageError(f"NAME {error}") from None
    known = {file.name: file for file in files}
    # A name that is written out means its file, whatever it holds.
    plain = {name for name in names if name in known}
    chosen = [file for file in files if patterns.take(file.name) or file.name in plain]
    for name in patterns.unmet():
        if name not in known:
            raise ArtifactNotFoundError(f"the job left no output {printable(name)!r}")
    return chosen


def _document(
    job_id: str, attempt: int, files: Iterable[OutputFile], problem: str
) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "attempt": attempt,
        "outputs": [
            {
                "name": file.name,
                "sha256": file.sha256,
                "size_bytes": file.size,
                "mode": f"{file.mode:04o}",
            }
            for file in files
        ],
        "outputs_error": problem or None,
    }
