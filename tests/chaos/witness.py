"""Sees from outside what jobs really did: each connects, says who it is, and holds the connection for as long as it lives.

The connection is the side effect. Whatever the tier of the walls, a job may dial 127.0.0.1; its children inherit the
descriptor, so the kernel closes it when the last process of the attempt is dead, however it died.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from dataclasses import dataclass, field

PROLOGUE = (
    # A shell says "Terminated" of a child that was stopped with it.
    'exec 2>/dev/null; exec 3<>/dev/tcp/127.0.0.1/{port} && echo "start $RUNNER_JOB_ID $RUNNER_ATTEMPT" >&3'
    " && read -r -u 3 _ || exit 99; "
)
EPILOGUE = "; code=$?; echo done >&3; exit $code"


@dataclass
class Run:
    """One execution of one attempt as it was seen."""

    job_id: str
    attempt: int
    begin: float
    end: float | None = None
    done: bool = False
    """It got to its last line."""
    beside: list[int] = field(default_factory=list)
    """Attempts of the same job that lived when it began."""


class Witness:
    """Listens from its making until ``close``; reading ``runs`` is safe at any moment."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.noise: list[str] = []
        """What was said that makes no sense."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._open: dict[socket.socket, Run | None] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="witness", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def script(self, body: str) -> str:
        """Return a script for bash that is witnessed from its first to its last line."""
        return PROLOGUE.format(port=self.port) + "{ " + body + "; }" + EPILOGUE

    def of(self, job_id: str) -> list[Run]:
        return [run for run in list(self.runs) if run.job_id == job_id]

    def living(self) -> list[Run]:
        return [run for run in list(self.runs) if run.end is None]

    def close(self) -> None:
        self._closed = True
        self._thread.join()
        for connection in self._open:
            connection.close()
        self._selector.close()
        self._listener.close()

    def _serve(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select(0.1):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._open:  # or it was found closed in this very round
                    self._read(key.data)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        self._open[connection] = None
        self._selector.register(connection, selectors.EVENT_READ, connection)

    def _read(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        run = self._open[connection]
        if not data:
            self._end(connection, run)
        elif run is None:
            self._begin(connection, data.decode().split())
        elif data == b"done\n":
            run.done = True
        else:
            self.noise.append(f"{run}: {data!r}")

    def _begin(self, connection: socket.socket, words: list[str]) -> None:
        if len(words) != 3 or words[0] != "start":
            self.noise.append(repr(words))
            return
        job_id, attempt = words[1], int(words[2])
        # Those of the same job that are dead by now count as dead, whatever the order of the news.
        for other, run in list(self._open.items()):
            if run is not None and run.job_id == job_id:
                self._read(other)
        beside = [r.attempt for r in self._open.values() if r is not None and r.job_id == job_id]
        run = Run(job_id, attempt, time.monotonic(), beside=beside)
        self.runs.append(run)
        self._open[connection] = run
        try:
            connection.sendall(b"go\n")
        except OSError:
            self._end(connection, run)

    def _end(self, connection: socket.socket, run: Run | None) -> None:
        if run is not None:
            run.end = time.monotonic()
        self._selector.unregister(connection)
        del self._open[connection]
        connection.close()
