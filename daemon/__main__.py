"""The daemon process: ``python -P -m daemon --instance NONCE --launch-fd N``, started by ``runner local start``.

It spawns the job server before it imports what it needs to watch it, so that all import at the same time: with
``--ahead`` even before it has its launch document, else as soon as it has that.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # imports make no garbage; Session turns it on

import os
import signal
import sys
from typing import TYPE_CHECKING

from daemon.local.first_spawn import AHEAD, CALLED_OFF_BY, ServerAhead, spawn_children

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from daemon.supervisor.spawning import SpawnedChild


def _launch_document(fd: int) -> dict[str, Any] | None:
    """Wait for the document; take the lock, the pipe for the progress and the log that come with it."""
    import json  # noqa: PLC0415 - not on the way to the server's spawn

    from agent_runner import document_channel  # noqa: PLC0415

    content, fds = document_channel.take(fd)
    if not content:
        return None
    document: dict[str, Any] = json.loads(content)
    if fds:
        document["lock_fd"], document["progress_fd"], log_fd = fds
        for stream in (1, 2):
            os.dup2(log_fd, stream)
        os.close(log_fd)
    for name in ("lock_fd", "progress_fd"):
        if document[name] >= 0:
            os.set_inheritable(document[name], False)
    return document


def _awaited(fd: int, ahead: ServerAhead | None) -> dict[str, Any] | None:
    """Return the document, or None if whoever started us has gone, or does not want us."""
    try:
        document = _launch_document(fd)
    except OSError as error:
        sys.stderr.write(f"runner: the launch document cannot be taken: {error.strerror}\n")
        document = None
    if document is None and ahead is not None:
        ahead.give_up()
    return document


def main(argv: list[str]) -> int:
    """Run the daemon; return its exit code."""
    os.chdir("/")
    # They wait until Session has handlers for them: else whoever calls a start off would leave our children to end alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, CALLED_OFF_BY)
    # The write end is never used nor closed: its end of file tells the children that we have died.
    life_in, _life_out = os.pipe()
    ahead = None
    if AHEAD in argv:
        argv.remove(AHEAD)
        ahead = ServerAhead(os.environ, life_in)  # noqa: TID251 - what whoever spawned us has chosen
    from agent_runner.hardening import harden  # noqa: PLC0415 - there is no secret here yet

    harden()
    options = dict(zip(argv[::2], argv[1::2], strict=False))
    if "--launch-fd" not in options or "--instance" not in options:
        sys.stderr.write("runner: the daemon is started by `runner local start`\n")
        return 2
    document = _awaited(int(options["--launch-fd"]), ahead)
    if document is None:
        return 1
    spared = frozenset[int]()
    if document.get("foreground"):
        # Whoever executed us in its place may have had children.
        from sandbox.procfs import own_children  # noqa: PLC0415

        spared = frozenset(own_children())
    early = spawn_children(document, life_in, ahead)
    return _run(document, early, options["--instance"], life_in, spared)


def _run(
    document: dict[str, Any],
    early: Mapping[str, SpawnedChild],
    nonce: str,
    life_fd: int,
    spared: frozenset[int],
) -> int:
    import agent_runner.plain_asyncio  # noqa: F401, PLC0415 - before whatever imports asyncio

    # isort: split
    # Early enough: an orphan goes to whoever is a subreaper when its parent dies.
    from sandbox.process import become_subreaper  # noqa: PLC0415

    become_subreaper()

    import asyncio  # noqa: PLC0415

    from daemon.local.session import Session  # noqa: PLC0415

    session = Session(document, early, nonce=nonce, life_fd=life_fd, spared=spared)
    code = asyncio.run(session.run())
    session.succeed()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
