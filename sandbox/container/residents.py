"""Containers that serve one command after the other, for jobs of one project that agree to it.

Making a container takes a third of a second, and this a few milliseconds. The price is in ``WALLS_NOT_HELD``: an earlier job
of the project ran as the same user in the same place. It can have changed the script that waits for the next command.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from sandbox.base import ExecRequest, Network, Wall
from sandbox.container import launcher
from sandbox.container.attachment import Attachment
from sandbox.container.command import ContainerCommand
from sandbox.container.engine import Engine
from sandbox.container.frames import FrameError
from sandbox.container.hardening import Fuses
from sandbox.container.starting import Starting
from sandbox.container.workplace import Workplace
from sandbox.errors import SandboxBrokenError, SandboxError

WALLS_NOT_HELD = (Wall.FS_READ, Wall.PROCESSES, Wall.TREE_KILL)
MAX_IDLE_S = 600.0
"""A container that nobody has wanted for so long is removed."""
_CLEAN_S = 30.0
"""How long it may take to remove what a job has left; a container is made in less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What two jobs must have in common to use one container."""

    project: str
    image: str
    """By id."""
    network: Network
    fuses: Fuses
    cache: bool


class Resident:
    """A container whose launcher waits for commands, and the workplace that it is in. Used by one sandbox at a time."""

    def __init__(self, engine: Engine, workplace: Workplace) -> None:
        self.workplace = workplace
        self.container = ""
        """Its id; empty before ``start``."""
        self._engine = engine
        self._attachment: Attachment | None = None
        self._command: ContainerCommand | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self, starting: Starting) -> None:
        """Wait for a container that was made, and tell it how to serve. Called once, before the first command."""
        self._attachment = starting.attachment
        self.container = starting.container
        await starting.running()
        await self._attachment.write(launcher.RESIDENT_SCRIPT.encode())

    def run(self, request: ExecRequest, script: bytes, end_mark: str) -> ContainerCommand:
        """Start a command, by what ``launcher.resident_call`` made of it; the one before has ended well."""
        if self._attachment is None:
            raise SandboxBrokenError("the container was not started")
        self._command = ContainerCommand(
            engine=self._engine,
            container=self.container,
            attachment=self._attachment,
            request=request,
            feeding=asyncio.get_running_loop().create_task(self._attachment.write(script)),
            end_mark=end_mark,
            serves_more=True,
        )
        return self._command

    def takes_more(self) -> bool:
        """Tell whether another command may follow."""
        fresh = self._command is None or self._command.others_may_follow
        return fresh and self._attachment is not None

    async def clean(self) -> bool:
        """Remove what the commands have left; tell whether that was possible and another job may follow."""
        if not self.takes_more() or self._attachment is None:
            return False
        said = b""
        with contextlib.suppress(TimeoutError, FrameError):
            async with asyncio.timeout(_CLEAN_S):
                await self._attachment.write(launcher.CLEANING)
                while launcher.CLEAN not in said and launcher.DIRTY not in said:
                    pieces = await self._attachment.read()
                    if pieces is None:
                        return False
                    said += b"".join(piece for _, piece in pieces)
        return said == launcher.CLEAN

    def rest(self, on_end: Callable[[], None]) -> None:
        """Wait for a job; tell if the container ends meanwhile. Called once it is clean."""
        if self._attachment is not None:
            self._watching = asyncio.create_task(self._watch(self._attachment, on_end))

    async def _watch(self, attachment: Attachment, on_end: Callable[[], None]) -> None:
        with contextlib.suppress(FrameError):
            await attachment.read()  # whatever it is, it is not what was agreed on
        on_end()

    async def wake(self) -> bool:
        """Make ready for a job; tell whether it is alive."""
        watching, self._watching = self._watching, None
        if watching is None or watching.done():
            return False
        watching.cancel()
        await asyncio.wait({watching})
        return watching.cancelled()

    async def let_go(self) -> None:
        """Close the connection; nothing can follow. Idempotent."""
        await self.wake()
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            await attachment.close()

    async def remove(self) -> None:
        """Remove the container and its workplace; what cannot be is left to ``reap``, by its label."""
        await self.let_go()
        await self.workplace.remove(*filter(None, (self.container,)))


class Residents:
    """Those that nobody uses at the moment. One per provider, on one loop."""

    def __init__(self, most: int, on_failure: Callable[[SandboxError], None]) -> None:
        """Remember the bound.

        Args:
            most: How many may wait; the one that has waited longest goes.
            on_failure: Told what could not be removed.
        """
        self._most = most
        self._on_failure = on_failure
        self._idle: list[tuple[Scope, Resident, asyncio.TimerHandle]] = []
        self._removing: set[asyncio.Task[None]] = set()

    async def take(self, scope: Scope) -> Resident | None:
        """Return one of this scope that lives, the last that was given; None if there is none."""
        while found := [each for each in self._idle if each[0] == scope]:
            _, resident, timer = found[-1]
            self._idle.remove(found[-1])
            timer.cancel()
            if await resident.wake():
                return resident
            self._drop(resident)
        return None

    def give(self, scope: Scope, resident: Resident) -> None:
        """Keep one that was cleaned for the next job of its scope."""
        timer = asyncio.get_running_loop().call_later(MAX_IDLE_S, self._drop, resident)
        self._idle.append((scope, resident, timer))
        resident.rest(lambda: self._ended(resident))
        if len(self._idle) > self._most:
            self._drop(self._idle[0][1])

    async def close(self) -> None:
        """Remove all of them."""
        for _, resident, _ in list(self._idle):
            self._drop(resident)
        if self._removing:
            await asyncio.wait(self._removing)

    def _ended(self, resident: Resident) -> None:
        if any(each[1] is resident for each in self._idle):
            self._drop(resident)

    def _drop(self, resident: Resident) -> None:
        for entry in [each for each in self._idle if each[1] is resident]:
            entry[2].cancel()
            self._idle.remove(entry)
        removing = asyncio.ensure_future(self._remove(resident))
        self._removing.add(removing)
        removing.add_done_callback(self._removing.discard)

    async def _remove(self, resident: Resident) -> None:
        try:
            await resident.remove()
        except SandboxError as error:
            self._on_failure(error)
