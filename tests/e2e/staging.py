"""An installation of staging for one test: processes in the foreground, each as a service manager starts it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.instance import RUNNER, Instance
from tests.waiting import wait_until

READY_S = 60.0
END_S = 60.0


@dataclass
class Service:
    """One process in the foreground, with a state directory, a log and a service manager of its own."""

    name: str
    root: Path
    words: tuple[str, ...]
    env: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = self.root / self.name
        self.log = self.root / f"{self.name}.log"
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(self.root / f"{self.name}.notify"))
        self._manager.setblocking(False)

    def start(self) -> Service:
        """Start it; a second time after its end."""
        self.told.clear()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [RUNNER, "--state-dir", str(self.state), *self.words],
                env=self.env | {"NOTIFY_SOCKET": str(self.root / f"{self.name}.notify")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def hear(self) -> list[str]:
        """Return what it has told its service manager since its start."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.told += self._manager.recv(1000).decode().splitlines()
        return self.told

    def wait_ready(self) -> Service:
        wait_until(lambda: "READY=1" in self.hear() or not self.alive, READY_S, self.tail)
        assert self.alive, self.tail()
        return self

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Return how it ends."""
        assert self.process is not None
        return self.process.wait(END_S)

    def kill(self) -> None:
        """Kill it as nobody can survive."""
        self.signal(signal.SIGKILL)
        self.wait()

    def end(self) -> None:
        """End it, whatever it does; harmless if it does not run."""
        if self.process is not None and self.alive:
            self.process.terminate()
            try:
                self.process.wait(END_S)
            finally:
                self.process.kill()
                self.process.wait()
        self._manager.close()

    def lines(self) -> list[dict[str, Any]]:
        """Return its log, each line of which is one JSON object."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def actions(self) -> list[str]:
        return [str(line["action"]) for line in self.lines()]

    def tail(self) -> str:
        return f"{self.name} has told {self.told}\n{self.log.read_text()[-3000:]}"


class Staging:
    """A job server, agent-runners, and a client on the host of the server."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.client = Instance(root)
        self.client.state = root / "server"
        self._services: list[Service] = []

    @property
    def token_file(self) -> Path:
        return self.client.state / "token"

    @property
    def address(self) -> str:
        """Return where the job server listens."""
        document = json.loads((self.client.state / "endpoints.json").read_bytes())
        return str(document["endpoints"]["tcp"])

    def service(self, name: str, *words: str, **env: str) -> Service:
        """Return a process that is not started; it ends with the test."""
        base = {key: value for key, value in self.client.env.items() if key != "RUNNER_STATE_DIR"}
        self._services.append(Service(name, self.root, words, base | env))
        return self._services[-1]

    def server(self, *words: str, **env: str) -> Service:
        """Start a job server on a free port of loopback, and wait for it."""
        listen = () if "--listen" in words else ("--listen", "127.0.0.1:0")
        return self.service("server", "server", *listen, *words, **env).start().wait_ready()

    def agent(self, name: str = "agent", *words: str, **env: str) -> Service:
        """Return an agent-runner of that server, in local mode, that is not started."""
        given = ("--server", self.address, "--token-file", str(self.token_file), "--name", name)
        return self.service(name, "agent-runner", *given, *words, **{"MODE": "local", **env})

    def close(self) -> None:
        """End everything, agent-runners first, also if one of them does not end by itself."""
        with contextlib.ExitStack() as ends:
            for service in self._services:
                ends.callback(service.end)
