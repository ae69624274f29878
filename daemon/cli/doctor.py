"""``runner doctor``: what of this machine the runner can use, what not, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from daemon.cli.output import print_json, print_table, state_of
from daemon.config import environ
from daemon.doctor.checks import CHECKS, run_checks
from daemon.doctor.finding import Finding, Level, Subject
from daemon.errors import StateDirError

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command(epilog="Example: runner doctor secrets --json")
@click.argument("areas", metavar="[AREA]...", nargs=-1, type=click.Choice([a for a, _ in CHECKS]))
@JSON_OPTION
@click.pass_context
def doctor(ctx: click.Context, *, areas: tuple[str, ...], as_json: bool) -> int:
    """Look at this machine; exits with 1 if something does not work."""
    return _examine(ctx, areas, as_json=as_json)


@click.command("doctor", epilog="Example: runner secrets doctor")
@JSON_OPTION
@click.pass_context
def secrets_doctor(ctx: click.Context, *, as_json: bool) -> int:
    """Look at the secret store, the keyring and the masker; the same as `runner doctor secrets`."""
    return _examine(ctx, ("secrets",), as_json=as_json)


def _examine(ctx: click.Context, areas: Sequence[str], *, as_json: bool) -> int:
    try:
        state = state_of(ctx)
    except StateDirError:
        state = None
    findings = run_checks(Subject(environ(), state), areas)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [(one.level, one.check, _sentence(one)) for one in findings]
        print_table(("LEVEL", "CHECK", "FINDING"), rows)
    return int(any(finding.level is Level.FAILED for finding in findings))


def _sentence(finding: Finding) -> str:
    return f"{finding.text}; {finding.todo}" if finding.todo else finding.text
