"""Sends the spool of one attempt to the server, from wherever the server says, until it has everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from agent_runner.backoff import Backoff
from agent_runner.client import DaemonClient, Lease, LogStream
from agent_runner.errors import LogGapError, NotAdmittedError, ServerUnavailableError
from agent_runner.spool import Spool

CHUNK_BYTES = 512 << 10
"""Of a message, at most: each costs both sides as much as copying all of it. Twice as much gains little, and takes memory."""
WINDOW_BYTES = 4 << 20
"""How much may be under way unacknowledged."""
SMALL_SEND_INTERVAL_S = 0.02
"""Small pieces are gathered this long, so that a chatty job costs 50 messages a second, not one per line."""


class LogShipper:
    """One attempt's log on its way. ``run`` may be called again after it returned."""

    def __init__(self, client: DaemonClient, lease: Lease, spool: Spool) -> None:
        self._client = client
        self._lease = lease
        self._spool = spool
        self._last_send = float("-inf")

    async def run(self) -> None:
        """Send until the spool is closed and acknowledged; reconnects for as long as it takes.

        Raises:
            LeaseLostError: The attempt is not ours any more.
            ServerRefusedError: The server will never take it.
            NotAdmittedError: The server takes nothing from this agent-runner now.
        """
        backoff = Backoff()
        while not (self._spool.closed and self._spool.acknowledged >= self._spool.length):
            try:
                await self._session()
                backoff.reset()
            except (ServerUnavailableError, LogGapError) as error:
                # While nobody acknowledges, the spool takes what comes instead of stopping the job.
                self._spool.set_paced(False)
                if isinstance(error, NotAdmittedError):
                    raise
                await backoff.wait()

    async def _session(self) -> None:
        stream = await self._client.append_log(self._lease)
        try:
            acknowledgements = stream.acknowledgements()
            start = await anext(acknowledgements, None)
            if start is None:
                raise ServerUnavailableError("the log stream ended before it began")
            self._spool.acknowledge(start)
            self._spool.set_paced(True)
            reader = asyncio.create_task(self._read(acknowledgements))
            try:
                await self._send(stream, reader, start)
                await stream.end()
                await reader
            finally:
                reader.cancel()
                await asyncio.wait([reader])
        finally:
            stream.close()

    async def _read(self, acknowledgements: AsyncIterator[int]) -> None:
        try:
            async for offset in acknowledgements:
                self._spool.acknowledge(offset)
        finally:
            self._spool.wake()

    async def _send(self, stream: LogStream, reader: asyncio.Task[None], sent: int) -> None:
        spool = self._spool
        while True:
            if reader.done():
                reader.result()
                raise ServerUnavailableError("the job server ended the log stream")
            pending = spool.length - sent
            if pending > 0 and sent - spool.acknowledged < WINDOW_BYTES:
                await self._gather(pending)
                data = spool.read(sent, CHUNK_BYTES)
                await stream.send(sent, data)
                sent += len(data)
            elif spool.closed and spool.acknowledged >= spool.length:
                return
            else:
                await spool.changed()

    async def _gather(self, pending: int) -> None:
        loop = asyncio.get_running_loop()
        due = self._last_send + SMALL_SEND_INTERVAL_S - loop.time()
        if pending < CHUNK_BYTES // 4 and due > 0 and not self._spool.closed:
            await asyncio.sleep(due)
        self._last_send = loop.time()
