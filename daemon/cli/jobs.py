"""``runner jobs``: submit, show, logs, cancel, wait, and the table of the other commands, each of a module of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from daemon.cli.app import LazyGroup
from daemon.cli.job_input import Overlays, overlay_options, read_job_file
from daemon.cli.output import note, print_json, printable, seconds_text
from daemon.cli.server_choice import connect
from daemon.cli.terminal_filter import shown_on
from daemon.cli.verdict import CANCELLED, describe, exit_status
from daemon.errors import Interrupted, RemoteError, UsageError

if TYPE_CHECKING:
    from daemon.job_client.client import JobClient
    from daemon.job_client.job_dicts import JobDict

COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("daemon.cli.jobs_list:list_jobs", "List jobs, newest first."),
    "why": ("daemon.cli.jobs_why:why", "Say why a job is where it is, and what happens next."),
    "retry": ("daemon.cli.jobs_retry:retry", "Submit a job that has ended again."),
    "outputs": ("daemon.cli.jobs_outputs:outputs", "List or fetch the files that a job left."),
    "watch": (
        "daemon.cli.jobs_watch:watch",
        "Watch jobs: a live table on a terminal, else events.",
    ),
}

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=LazyGroup, lazy=COMMANDS)
def jobs() -> None:
    """Submit jobs, watch them, read their logs."""


@jobs.command(
    epilog="Examples: runner jobs submit --file build.yaml --follow; runner jobs submit --wait -- uname -a"
)
@click.option(
    "--file", "-f", "file", metavar="FILE", help="Job file, YAML or JSON; - reads standard input."
)
@overlay_options
@click.option("--name", help="Name of a job given as a command.")
@click.option("--wait", is_flag=True, help="Wait for the end; exit with the command's exit code.")
@click.option("--follow", is_flag=True, help="Print the log as it comes, then as --wait.")
@click.option("--count", type=click.IntRange(1, 100_000), default=1, help="Submit it this often.")
@click.option("--request-id", help="Makes a repeated submit return the same job.")
@click.option("--project", metavar="P", help="The project of a job that names none itself.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@JSON_OPTION
@click.pass_context
def submit(  # noqa: PLR0913 - one parameter per option
    ctx: click.Context,
    *,
    file: str | None,
    overlays: Overlays,
    name: str | None,
    wait: bool,
    follow: bool,
    count: int,
    request_id: str | None,
    project: str | None,
    command: tuple[str, ...],
    as_json: bool,
) -> int:
    """Submit a job file, or a COMMAND after --, which starts in an empty folder."""
    if (file is None) == (not command):
        raise UsageError("give either --file FILE or a command after --")
    if follow and (as_json or count > 1):
        raise UsageError("--follow prints one log: leave out --json and --count")
    if request_id and count > 1:
        raise UsageError("--request-id names one job: leave out --count")
    request = _submit_request(file, overlays, name, command)
    request.request_id = request_id or ""
    with connect(ctx, project) as client:
        submitted = client.submit(request, count)
        if follow:
            return follow_job(client, submitted[0]["id"])
        if wait:
            submitted = wait_for(client, [job["id"] for job in submitted], quiet=as_json)
        print_submitted(submitted, as_json=as_json, waited=wait)
    return verdict(submitted) if wait else 0


def _submit_request(
    file: str | None, overlays: Overlays, name: str | None, command: Sequence[str]
) -> Any:
    from runner.v1 import job_pb2  # noqa: PLC0415 - protobuf is heavy
    from runner.v1 import job_service_pb2 as pb  # noqa: PLC0415

    if file is None:
        if overlays.documents:
            raise UsageError("--input is laid over a job file; a command has none")
        spec = job_pb2.JobSpec(name=name or printable(command[0])[:80], argv=command)
        return pb.SubmitJobRequest(spec=spec)
    if name is not None:
        raise UsageError("--name is for a command; a job file names its job itself")
    job_file, *inputs = (
        pb.JobFile(name=each.name, content=each.content, base_dir=str(each.base_dir))
        for each in (read_job_file(file), *overlays.documents)
    )
    job_file.overlays.extend(inputs)
    job_file.allow_secret_overrides = overlays.allow_secret_overrides
    return pb.SubmitJobRequest(job_file=job_file)


def print_submitted(submitted: list[JobDict], *, as_json: bool, waited: bool) -> None:
    """Print jobs that were accepted, or how they ended."""
    if as_json:
        print_json(submitted[0] if len(submitted) == 1 else submitted)
    elif waited:
        for job in submitted:
            print(f"{job['id']}  {describe(job['end_reason'], job['exit_code'], job['message'])}")
    else:
        for job in submitted:
            print(job["id"])


@jobs.command(epilog="Example: runner jobs show JOB --json")
@click.argument("job_id", metavar="JOB")
@JSON_OPTION
@click.pass_context
def show(ctx: click.Context, job_id: str, as_json: bool) -> None:
    """Show one job and its attempts."""
    with connect(ctx) as client:
        job = client.get(job_id)
    if as_json:
        print_json(job)
        return
    sandbox = job["sandbox"]
    lines = {
        "id": job["id"],
        "name": job["name"],
        "state": job["state"],
        "end": describe(job["end_reason"], job["exit_code"], job["message"])
        if job["end_reason"]
        else "-",
        "attempts": str(job["attempt"]),
        "submitted": job["create_time"],
        "time": seconds_text(duration_s(job)),
        "sandbox": f"{sandbox['kind']}, {sandbox['tier']}" if sandbox else "-",
    }
    if sandbox and sandbox["walls_not_held"]:
        lines["walls not held"] = ", ".join(sandbox["walls_not_held"])
    if sandbox and sandbox["limits"]:
        lines["bounds"] = ", ".join(
            f"{limit['value']:.15g} of {limit['name']} by {limit['by'] or 'nobody'}"
            for limit in sandbox["limits"]
        )
    if job["parent"]:
        lines["triggered by"] = job["parent"]
    if job["children"]:
        lines["triggered"] = ", ".join(job["children"])
    source = job["attempts"][-1]["source"] if job.get("attempts") else {}
    for key, title in (("commit", "source"), ("ci_commit", "ci source")):
        if source.get(key):
            lines[title] = f"commit {source[key]}"
    problem = job["attempts"][-1]["outputs_error"] if job.get("attempts") else None
    if problem:
        lines["outputs"] = f"not kept: {problem}"
    for key, value in lines.items():
        print(f"{key + ':':16}{printable(value)}")


@jobs.command(epilog="Example: runner jobs logs JOB --follow")
@click.argument("job_id", metavar="JOB")
@click.option("--follow", "-f", is_flag=True, help="Wait for more until the job has ended.")
@click.option("--attempt", type=click.IntRange(1), help="Which try (default: the newest).")
@click.option("--offset", type=click.IntRange(0), default=0, help="Start at this byte.")
@click.pass_context
def logs(
    ctx: click.Context, *, job_id: str, follow: bool, attempt: int | None, offset: int
) -> None:
    """Print the masked log of a job."""
    with connect(ctx) as client:
        if follow:
            _print_log(client.follow_log(job_id, attempt or 0, offset), job_id)
        else:
            _print_log(client.read_log(job_id, attempt or 0, offset, follow=False), job_id)


@jobs.command(epilog="Example: runner jobs cancel JOB")
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@JSON_OPTION
@click.pass_context
def cancel(ctx: click.Context, job_ids: tuple[str, ...], as_json: bool) -> int:
    """Cancel jobs, queued or running; one that cannot be cancelled keeps no other."""
    cancelled: list[JobDict] = []
    code = 0
    with connect(ctx) as client:
        for job_id in job_ids:
            try:
                cancelled.append(client.cancel(job_id))
            except RemoteError as error:
                if len(job_ids) == 1:
                    raise
                note(f"runner: {error}")
                code = max(code, error.remote_exit_code)
    if as_json:
        print_json(cancelled[0] if len(cancelled) == 1 else cancelled)
    else:
        for job in cancelled:
            print(f"{job['id']}  {job['state']}")
    return code


@jobs.command(epilog="Example: runner jobs wait JOB")
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@JSON_OPTION
@click.pass_context
def wait(ctx: click.Context, job_ids: tuple[str, ...], as_json: bool) -> int:
    """Wait until jobs have ended; exit with the command's exit code (several jobs: 1 if one failed)."""
    with connect(ctx) as client:
        ended = wait_for(client, job_ids, quiet=True)
    print_submitted(ended, as_json=as_json, waited=True)
    return verdict(ended)


def wait_for(client: JobClient, job_ids: Sequence[str], *, quiet: bool) -> list[JobDict]:
    """Wait until all jobs have ended and return them.

    Raises:
        Interrupted: The person did not want to wait any more.
    """
    show_progress = not quiet and len(job_ids) > 1 and sys.stderr.isatty()
    try:
        for done, _ in enumerate(client.wait(job_ids), 1):
            if show_progress:
                print(f"\r{done}/{len(job_ids)} jobs ended", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        raise Interrupted("stopped waiting; the jobs go on (see `runner jobs list`)") from None
    finally:
        if show_progress:
            print(file=sys.stderr)
    return client.get_all(job_ids)


def follow_job(client: JobClient, job_id: str) -> int:
    """Print the log of a job until its end; return the exit code for it."""
    note(f"job {job_id}")
    _print_log(client.follow_log(job_id, 0, 0), job_id)
    job = wait_for(client, [job_id], quiet=True)[0]
    note(f"job {job_id} {describe(job['end_reason'], job['exit_code'], job['message'])}")
    return verdict([job])


def _print_log(pieces: Any, job_id: str) -> None:
    out, shown = sys.stdout.buffer, shown_on(sys.stdout)
    try:
        for piece in pieces:
            if piece.data:
                out.write(shown(piece.data))
                out.flush()
            if piece.HasField("end") and piece.end.truncated:
                note(f"runner: the log is shorter than the output: {piece.end.truncated}")
    except KeyboardInterrupt:
        raise Interrupted(
            f"detached; the job goes on (`runner jobs logs {job_id} --follow`, `runner jobs cancel {job_id}`)"
        ) from None


def verdict(ended: list[JobDict]) -> int:
    """Return the exit code for jobs that have ended."""
    codes = [exit_status(job["end_reason"], job["exit_code"]) for job in ended]
    if len(codes) == 1:
        return codes[0]
    if all(job["state"] == "CANCELLED" for job in ended):
        return CANCELLED
    return 0 if not any(codes) else 1


def duration_s(job: JobDict) -> float | None:
    """Return how long the last attempt took; None before it has ended."""
    if not job["start_time"] or not job["end_time"]:
        return None
    start, end = (datetime.fromisoformat(job[key]) for key in ("start_time", "end_time"))
    return (end - start).total_seconds()
