"""``runner jobs retry``."""

from __future__ import annotations

import click

from daemon.cli.jobs import (
    JSON_OPTION,
    follow_job,
    print_submitted,
    verdict,
    wait_for,
)
from daemon.cli.server_choice import connect
from daemon.errors import UsageError


@click.command(epilog="Example: runner jobs retry JOB --follow")
@click.argument("job_id", metavar="JOB")
@click.option("--wait", is_flag=True, help="Wait for the end; exit with the command's exit code.")
@click.option("--follow", is_flag=True, help="Print the log as it comes, then as --wait.")
@click.option("--request-id", help="Makes a repeated retry return the same new job.")
@JSON_OPTION
@click.pass_context
def retry(  # noqa: PLR0913 - one parameter per option
    ctx: click.Context,
    *,
    job_id: str,
    wait: bool,
    follow: bool,
    request_id: str | None,
    as_json: bool,
) -> int:
    """Submit a job that has ended again, as a new job; print its id."""
    if follow and as_json:
        raise UsageError("--follow prints one log: leave out --json")
    with connect(ctx) as client:
        job = client.retry(job_id, request_id)
        if follow:
            return follow_job(client, job["id"])
        submitted = wait_for(client, [job["id"]], quiet=True) if wait else [job]
    print_submitted(submitted, as_json=as_json, waited=wait)
    return verdict(submitted) if wait else 0
