"""``runner sandbox``: what keeps jobs from this machine, tried on this machine."""

from __future__ import annotations

import asyncio

import click

from daemon.cli.output import note, print_json, print_table
from daemon.cli.sandbox_shell import shell
from daemon.errors import DaemonError
from sandbox.base import Tier
from sandbox.errors import SandboxUnavailableError

_TIERS = [tier.label for tier in (Tier.BWRAP, Tier.LANDLOCK, Tier.PLAIN)]


@click.group()
def sandbox() -> None:
    """Look at what jobs run in."""


sandbox.add_command(shell)


@sandbox.command(epilog="Example: runner sandbox check --json")
@click.option("--tier", type=click.Choice(_TIERS), help="Try this one (default: the strongest).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(*, tier: str | None, as_json: bool) -> int:
    """Try every wall from inside a sandbox; exits with 1 if one does not hold that should."""
    from sandbox.filesystem.self_check import check_walls  # noqa: PLC0415 - for this command alone

    try:
        found, checks = asyncio.run(check_walls(None if tier is None else Tier.parse(tier)))
    except SandboxUnavailableError as error:
        raise DaemonError(f"no sandbox works here: {error}") from error
    if as_json:
        walls = [
            {"name": str(one.wall), "held": one.held, "broken": one.broken, "how": one.how}
            for one in checks
        ]
        print_json(
            {"kind": found.kind, "tier": found.tier.label, "reason": found.reason, "walls": walls}
        )
    else:
        note(f"tier {found.tier.label}" + (f": {found.reason}" if found.reason else ""))
        words = {(True, False): "yes", (False, True): "BROKEN"}
        rows = [(str(o.wall), words.get((o.held, o.broken), "no"), o.how) for o in checks]
        print_table(("WALL", "HELD", "HOW"), rows)
    return int(any(one.broken for one in checks))
