"""Commands of a ``Spawner``, for the tests of what they are and of what becomes of its helper."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from sandbox.filesystem.call_list import CallList
from sandbox.filesystem.spawner import Spawner


def listed(
    spawner: Spawner,
    script: str,
    prepare: Callable[[CallList], None] = lambda _: None,
    env: dict[str, str] | None = None,
) -> CallList:
    """Return the list of a shell command."""
    calls = CallList(spawner.machine)
    calls.empty_stdin()
    prepare(calls)
    calls.execute(["/bin/sh", "-c", script], env or {})
    return calls


def run(
    spawner: Spawner,
    script: str,
    prepare: Callable[[CallList], None] = lambda _: None,
    kept: Sequence[int] = (),
    env: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """Run a shell command; return its exit status and its output."""
    read_fd, write_fd = os.pipe()
    pid = spawner.spawn(listed(spawner, script, prepare, env), output_fd=write_fd, kept=kept)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        output = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output


def helper_of(spawner: Spawner) -> int:
    """Return the pid of the helper, begun if need be."""
    assert run(spawner, "exit 4") == (4, b"")
    assert spawner._helper is not None
    return spawner._helper.pid
