"""A unix socket by which the commands of one sandbox reach the runner, and the program that knows how.

``.runner`` in the workspace holds ``mask.sock`` (0600, the job's), ``bin/runnerlib`` and the package it runs. Made for
the jobs that can have a use for it, because it costs a millisecond and the second use of the workspace.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

FOLDER = ".runner"
SOCKET = "mask.sock"
MAX_LINE_BYTES = 64 << 10
MAX_CONNECTIONS = 8
REQUEST_S = 10.0
_PROGRAM = b"""#!/usr/bin/env python3
import os, sys
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + "/lib")
from runnerlib.__main__ import main
sys.exit(main())
"""
_SHIM = b"from runnerlib.workflow import *\n"
"""Of the module that scripts of the first generation import."""

Answer = Callable[[bytes], Awaitable[bytes]]
"""Turns the line of a request into the line of its answer; called concurrently."""


class Door(NamedTuple):
    """Where commands find what is for them."""

    folder: str
    """``.runner`` as they see it."""
    socket: str
    """The path of the socket; empty where they may use no unix socket."""


@runtime_checkable
class Listening(Protocol):
    """What a sandbox can do whose commands can reach the runner."""

    async def listen(self, answer: Answer) -> Door:
        """Open the socket, if commands may use one, and install the program.

        Called at most once, before ``exec``. ``destroy`` closes it.

        Raises:
            SandboxBrokenError: The disk is full or broken.
        """
        ...


class JobSocket:
    """The socket of one sandbox. Used on one event loop only."""

    def __init__(self, answer: Answer) -> None:
        """Remember who answers."""
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._connections = 0

    async def open(self, job: Path, uid: int | None) -> None:
        """Listen in a folder that ``install`` has made. Nothing of the job may run yet.

        Args:
            job: The folder that is ``/job`` inside.
            uid: Whose the socket is, if this process is root's.

        Raises:
            OSError: The disk is full or broken, or the name is taken.
        """
        folder = job / FOLDER
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # By the descriptor: the path of a socket has 107 bytes, that of a workspace may have more.
            path = f"/proc/self/fd/{fd}/{SOCKET}"
            listener.bind(path)
            os.chmod(path, 0o600)  # noqa: PTH101 - nobody can connect before listen()
            if uid is not None:
                os.chown(path, uid, uid, follow_symlinks=False)
            self._server = await asyncio.start_unix_server(
                self._serve, sock=listener, limit=MAX_LINE_BYTES
            )
        except BaseException:
            listener.close()
            raise
        finally:
            os.close(fd)

    def close(self) -> None:
        """Listen no more. Idempotent; the folder goes with the workspace."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= MAX_CONNECTIONS:
                async with asyncio.timeout(REQUEST_S):
                    line = await reader.readuntil(b"\n")
                writer.write(await self._answer(line) + b"\n")
                async with asyncio.timeout(REQUEST_S):
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # it gets no answer, and takes that for a refusal
        finally:
            self._connections -= 1
            writer.close()


def install(job: Path) -> None:
    """Write the program and a copy of the package: where this one is installed may be hidden from the job.

    Raises:
        OSError: The disk is full or broken, or the name is taken.
    """
    folder = job / FOLDER
    found = importlib.util.find_spec("runnerlib")
    if found is None or found.origin is None:
        raise FileNotFoundError("the package runnerlib is not installed")
    library = folder / "lib" / "runnerlib"
    for made in (folder, folder / "bin", folder / "lib", library):
        made.mkdir()
        made.chmod(0o755)
    program = folder / "bin" / "runnerlib"
    program.write_bytes(_PROGRAM)
    program.chmod(0o755)
    shim = folder / "lib" / "workflow.py"
    shim.write_bytes(_SHIM)
    shim.chmod(0o644)
    for source in Path(found.origin).parent.glob("*.py"):
        copy = library / source.name
        copy.write_bytes(source.read_bytes())
        copy.chmod(0o644)
