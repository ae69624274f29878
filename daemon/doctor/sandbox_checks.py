"""What the walls of the sandbox hold on this machine, for ``runner doctor``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from daemon.doctor.finding import Finding, Level, Subject
from sandbox.base import Tier
from sandbox.errors import SandboxError
from sandbox.filesystem.self_check import check_walls

_AREA = "sandbox"
_INSTALL = "install bubblewrap, and allow user namespaces"


def check_sandbox(_: Subject) -> Iterator[Finding]:
    """Try every wall of the strongest tier, from inside a sandbox that is removed again."""
    try:
        found, checks = asyncio.run(check_walls(None))
    except SandboxError as error:
        yield Finding(f"{_AREA}.tier", Level.FAILED, f"no sandbox works here: {error}", _INSTALL)
        return
    label = f"the strongest tier is {found.tier.label}"
    if found.tier is Tier.BWRAP:
        yield Finding(f"{_AREA}.tier", Level.OK, label)
    else:
        yield Finding(f"{_AREA}.tier", Level.WARNING, f"{label}: {found.reason}", _INSTALL)
    for check in checks:
        name = f"{_AREA}.{check.wall}"
        if check.broken:
            text = "a sandbox should hold it, and does not"
            yield Finding(name, Level.FAILED, text, "do not run what you do not trust; report this")
        elif not check.held and found.tier is not Tier.BWRAP:
            yield Finding(name, Level.WARNING, "not held by this tier", _INSTALL)
