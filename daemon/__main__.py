"""The daemon process: ``python -P -m daemon --instance NONCE --launch-fd N``, started by ``runner local start``.

It spawns its children before it imports what it needs to watch them, so that all three import at
the same time.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # imports make no garbage; Session turns it on

import json
import os
import sys
from typing import Any

from agent_runner.hardening import harden
from daemon.local.first_spawn import spawn_children


def _launch_document(fd: int) -> dict[str, Any] | None:
    with os.fdopen(fd, "rb") as pipe:
        content = pipe.read()
    if not content:
        return None
    document: dict[str, Any] = json.loads(content)
    for name in ("lock_fd", "progress_fd"):
        if document[name] >= 0:
            os.set_inheritable(document[name], False)
    return document


def main(argv: list[str]) -> int:
    """Run the daemon; return its exit code."""
    harden()
    options = dict(zip(argv[::2], argv[1::2], strict=False))
    if "--launch-fd" not in options or "--instance" not in options:
        sys.stderr.write("runner: the daemon is started by `runner local start`\n")
        return 2
    document = _launch_document(int(options["--launch-fd"]))
    if document is None:
        return 1  # whoever started us has gone
    # The write end is never used nor closed: its end of file tells the children that we have died.
    life_in, _life_out = os.pipe()
    spared = frozenset[int]()
    if document.get("foreground"):
        # Whoever executed us in its place may have had children.
        from sandbox.procfs import own_children  # noqa: PLC0415

        spared = frozenset(own_children())
    early = spawn_children(document, life_in)

    import agent_runner.plain_asyncio  # noqa: F401, PLC0415 - before whatever imports asyncio

    # isort: split
    # Early enough: an orphan goes to whoever is a subreaper when its parent dies.
    from sandbox.process import become_subreaper  # noqa: PLC0415

    become_subreaper()

    import asyncio  # noqa: PLC0415

    from daemon.local.session import Session  # noqa: PLC0415

    session = Session(document, early, nonce=options["--instance"], life_fd=life_in, spared=spared)
    code = asyncio.run(session.run())
    session.succeed()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
