"""The event loop's side of one spawned child: its output, its ready line and its end.

Plain ``add_reader`` on the pipes and on a pidfd: no stream objects, no thread, no child watcher.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from daemon.logs import LogSink
from daemon.supervisor.spawning import SpawnedChild

READ_BYTES = 256 << 10
_MAX_READY_BYTES = 64 << 10
_MAX_DRAIN_READS = 64
_REST_S = 0.02
"""Between two reads of what a child writes: it writes line by line, and to be woken for each costs more than the line."""
_BURST_BYTES = 16 << 10
"""After so many at once there is no rest, or the child would wait for its pipe, which holds 64 KiB."""


class ChildWatch:
    """Watches one start of one child, from its spawn to its end."""

    def __init__(
        self,
        child: SpawnedChild,
        log: LogSink,
        on_ready_line: Callable[[bytes], None],
        on_end: Callable[[int], None],
    ) -> None:
        """Begin; ``on_ready_line`` is called at most once, ``on_end`` exactly once and last."""
        self._loop = asyncio.get_running_loop()
        self._child = child
        self._log = log
        self._masking = log.stream()
        self._on_ready_line = on_ready_line
        self._on_end = on_end
        self._said = b""
        self._resting: asyncio.TimerHandle | None = None
        self.pidfd = os.pidfd_open(child.pid)
        self._listen()
        self._loop.add_reader(child.ready_fd, self._read_ready)
        self._loop.add_reader(self.pidfd, self._ended)
        if child.handover is not None:
            self._loop.add_writer(child.handover, self._send_more)

    def _listen(self) -> None:
        self._loop.add_reader(self._child.output_fd, self._read_and_rest)

    def _read_and_rest(self) -> None:
        if 0 < self._read_output() < _BURST_BYTES:
            self._loop.remove_reader(self._child.output_fd)
            self._resting = self._loop.call_later(_REST_S, self._listen)

    def _read_output(self) -> int:
        """File what there is, and return how many bytes it was."""
        data = _read(self._child.output_fd, READ_BYTES)
        if data:
            self._log.append(self._masking.feed(data))
        elif data == b"":
            self._loop.remove_reader(self._child.output_fd)
        return len(data or b"")

    def _read_ready(self) -> None:
        data = _read(self._child.ready_fd, _MAX_READY_BYTES)
        if data is None:
            return
        self._said += data
        if not data or self._said.endswith(b"\n") or len(self._said) > _MAX_READY_BYTES:
            self._loop.remove_reader(self._child.ready_fd)
            # An end without a word says nothing: the child's end or the deadline will.
            if self._said:
                said, self._said = self._said, b""
                self._on_ready_line(said)

    def _send_more(self) -> None:
        channel = self._child.handover
        if channel is not None:
            fd = channel.fileno()
            if self._child.send():
                self._loop.remove_writer(fd)

    def _ended(self) -> None:
        returncode = self._child.process.poll()
        if returncode is None:
            return
        # What it wrote before its end is there already; an orphan that holds the pipe could write
        # for ever, hence the bound.
        for _ in range(_MAX_DRAIN_READS):
            if not self._read_output():
                break
        self._log.append(self._masking.close())
        self._read_ready()
        self._close()
        self._on_end(returncode)

    def _close(self) -> None:
        child = self._child
        if self._resting is not None:
            self._resting.cancel()
        if child.handover is not None:
            self._loop.remove_writer(child.handover)
            child.unsent = memoryview(b"")
            child.send()
        for fd in (child.output_fd, child.ready_fd, self.pidfd):
            self._loop.remove_reader(fd)
            os.close(fd)
        self.pidfd = -1


def _read(fd: int, size: int) -> bytes | None:
    """Return what a pipe has: empty at its end, None when there is nothing now."""
    try:
        return os.read(fd, size)
    except BlockingIOError:
        return None
