"""``runner tokens``: lets others in at the job server, and out again."""

from __future__ import annotations

import re

import click

from daemon.cli.app import LazyGroup
from daemon.cli.output import note, print_json, print_table
from daemon.cli.server_choice import open_connection
from daemon.clock import SystemClock
from daemon.errors import UsageError

DAY_S = 86400
UNITS_S = {"m": 60, "h": 3600, "d": DAY_S, "w": 7 * DAY_S}
MAX_YEARS = 100
_SPAN = re.compile(r"([0-9]{1,6})([mhdw])")

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(
    cls=LazyGroup,
    lazy={},
    epilog="Example: runner tokens create --role agent --project web --expires 90d > token",
)
def tokens() -> None:
    """Issue tokens to clients and agent-runners of this job server, list them, revoke them."""


@tokens.command(
    epilog="Example: runner tokens create --role client --project web --expires 90d > token"
)
@click.option(
    "--role",
    required=True,
    type=click.Choice(["client", "agent", "admin"]),
    help="client submits and reads jobs, agent runs them, admin may do everything.",
)
@click.option(
    "--project",
    "projects",
    multiple=True,
    metavar="P",
    help="For jobs of this project, or of these. Not for an admin.",
)
@click.option(
    "--expires", metavar="WHEN", help="Ends by itself after 30m, 12h, 90d or 4w. Default: never."
)
@JSON_OPTION
@click.pass_context
def create(
    ctx: click.Context,
    *,
    role: str,
    projects: tuple[str, ...],
    expires: str | None,
    as_json: bool,
) -> None:
    """Make a token and print it, this once: only its hash is kept."""
    if (role == "admin") == bool(projects):
        raise UsageError(
            "--project is not for an admin, who has every project"
            if projects
            else f"--role {role} needs --project P; several may be given"
        )
    expire_us = None if expires is None else SystemClock().now_us() + _span_us(expires)
    with open_connection(ctx) as connection:
        from daemon.job_client.token_client import TokenClient  # noqa: PLC0415 - grpc is heavy

        token, secret = TokenClient(connection).create(role, projects, expire_us)
    if as_json:
        print_json({**token, "secret": secret})
        return
    print(secret)
    note(f"{token['id']}: {role}{_of(token['projects'])}; it is not shown again")


@tokens.command("list", epilog="Example: runner tokens list --json")
@JSON_OPTION
@click.pass_context
def list_(ctx: click.Context, *, as_json: bool) -> None:
    """List tokens, newest first, also those that count no more. Their secrets are not kept."""
    with open_connection(ctx) as connection:
        from daemon.job_client.token_client import TokenClient  # noqa: PLC0415

        found = TokenClient(connection).tokens()
    if as_json:
        print_json(found)
        return
    rows = [
        (
            token["id"],
            token["role"],
            ",".join(token["projects"]) or "all",
            token["create_time"],
            token["last_use_time"] or "never",
            token["expire_time"] or "never",
            token["revoke_time"] or "-",
        )
        for token in found
    ]
    print_table(("ID", "ROLE", "PROJECTS", "CREATED", "LAST USED", "EXPIRES", "REVOKED"), rows)


@tokens.command(epilog="Example: runner tokens revoke tok-0123456789")
@click.argument("token_id", metavar="ID")
@JSON_OPTION
@click.pass_context
def revoke(ctx: click.Context, *, token_id: str, as_json: bool) -> None:
    """End a token at once, and every stream that was opened with it."""
    with open_connection(ctx) as connection:
        from daemon.job_client.token_client import TokenClient  # noqa: PLC0415

        token = TokenClient(connection).revoke(token_id)
    if as_json:
        print_json(token)
    else:
        print(f"{token['id']} revoked")


def _of(projects: list[str]) -> str:
    return f" of {', '.join(projects)}" if projects else ""


def _span_us(text: str) -> int:
    match = _SPAN.fullmatch(text)
    seconds = int(match[1]) * UNITS_S[match[2]] if match else 0
    if not 0 < seconds <= MAX_YEARS * 365 * DAY_S:
        raise UsageError(f"--expires {text}: must be a span such as 30m, 12h, 90d or 4w")
    return seconds * 1_000_000
