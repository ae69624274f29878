"""``runner jobs list``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

from daemon.cli.jobs import JSON_OPTION, duration_s
from daemon.cli.output import print_json, print_table, seconds_text
from daemon.cli.server_choice import connect
from daemon.clock import SystemClock
from daemon.errors import UsageError

STATES = ("PENDING", "BLOCKED", "RUNNING", "CANCELLING", "SUCCEEDED", "FAILED", "CANCELLED")
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"(\d{1,9})([smhdw])")


@click.command(
    "list", epilog="Example: runner jobs list --state FAILED --label os=linux --since 2h"
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES, case_sensitive=False),
    help="Only jobs in this state, or one of these.",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="K=V",
    help="Only jobs with this label, or all these.",
)
@click.option(
    "--since", metavar="WHEN", help="Only jobs submitted since then: 90s, 30m, 2h, 7d, or RFC 3339."
)
@click.option("--project", metavar="P", help="Only jobs of this project.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@JSON_OPTION
@click.pass_context
def list_jobs(  # noqa: PLR0913 - one parameter per option
    ctx: click.Context,
    *,
    states: tuple[str, ...],
    labels: tuple[str, ...],
    since: str | None,
    project: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List jobs, newest first."""
    now_us = SystemClock().now_us()
    wanted = label_pairs(labels)
    since_us = since_moment(since, now_us) if since is not None else None
    with connect(ctx, project) as client:
        found = client.newest([state.upper() for state in states], limit, wanted, since_us)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            job["id"],
            job["name"],
            job["state"],
            "-" if job["exit_code"] is None else str(job["exit_code"]),
            seconds_text(duration_s(job)),
            job["create_time"],
        )
        for job in found
    ]
    print_table(("ID", "NAME", "STATE", "EXIT", "TIME", "SUBMITTED"), rows)


def label_pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """Return labels from ``K=V`` words.

    Raises:
        UsageError: A word has no ``=`` or no key, or two say different things of one key.
    """
    labels: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"--label {text}: must be K=V")
        if labels.setdefault(key, value) != value:
            raise UsageError(f"--label {key}: a job has one value of each label, not two")
    return labels


def since_moment(text: str, now_us: int) -> int:
    """Return the moment that ``--since`` names, in microseconds since the epoch.

    Raises:
        UsageError: It is neither a span nor a moment, or a moment that no timestamp can hold.
    """
    span = _SPAN.fullmatch(text)
    if span:
        return max(0, now_us - int(span[1]) * UNITS_S[span[2]] * 1_000_000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--since {text}: must be a span such as 30m, 2h or 7d, or a moment such as 2026-01-31T08:00:00Z"
        ) from None
    try:
        utc = moment.astimezone(UTC)  # one without a zone is of this place
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since {text}: out of range, it must lie in the years 1 to 9999 of UTC"
        ) from None
    return max(0, (utc - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))
