"""What a job must not reach: files, processes, servers and memory of the host, all holding one secret."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

HOME_FILES = (
    ".ssh/id_rsa",
    ".aws/credentials",
    ".netrc",
    ".docker/config.json",
    ".config/gh/hosts.yml",
    ".bash_history",
    ".bashrc",
)
PEER = "while :; do sleep 5; done"
_IPC_CREAT, _IPC_RMID = 0o1000, 0
_BYTES = 4096


class Decoys:
    """The fixtures of one case, owned by the user of its commands. Entered and left on the loop of the case."""

    def __init__(self, folder: Path) -> None:
        """Remember where; ``folder`` does not exist yet."""
        self.uid = os.geteuid()
        self.folder = folder
        self.secret = f"decoy-{os.urandom(8).hex()}"
        self.job_secret = f"given-{os.urandom(8).hex()}"
        self.mark = f"mark-{os.urandom(8).hex()}"
        self.tmp_name = f"tmp-{os.urandom(8).hex()}"
        self.shm_name = f"shm-{os.urandom(8).hex()}"
        self.host = folder / "host"
        self.home = self.host / "home"
        self.state = self.host / "state"
        self.victim = self.host / "victim"
        self._stack = contextlib.ExitStack()
        self._servers: list[asyncio.Server] = []
        self.peer: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self.folder.mkdir(mode=0o711)
        self.folder.chmod(0o711)
        files = [self.victim, *(self.home / name for name in HOME_FILES)]
        files += [self.state / name for name in ("token", "runner.db")]
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.secret + "\n")
            path.chmod(0o600)
        await self._serve()
        self._share_memory()
        self.host.chmod(0o700)
        self.entries = sorted(os.listdir(self.host))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end_peer()
        for server in self._servers:
            server.close()
        self._stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def give_to(self, uid: int) -> None:
        """Make everything this user's, so that only the sandbox protects it, and start the peer as this user."""
        self.uid = uid
        for path in (self.host, *self.host.rglob("*"), Path("/dev/shm") / self.shm_name):
            os.chown(path, uid, uid)
        argv = [*self.as_user(), "/bin/sh", "-c", PEER, self.secret]
        env = {"PATH": "/usr/bin:/bin", "T_SECRET": self.secret}
        self.peer = subprocess.Popen(argv, env=env, start_new_session=True)

    def end_peer(self) -> None:
        """End the process of the host. Idempotent."""
        if self.peer is not None:
            os.killpg(self.peer.pid, signal.SIGKILL)
            self.peer.wait()
            self.peer = None

    def as_user(self) -> list[str]:
        """Return what to put before a command of the host that is to be the job's user's."""
        if os.geteuid() == self.uid:
            return []
        ids = [f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        return ["/usr/bin/setpriv", *ids, "--"]

    def environment(self) -> dict[str, str]:
        """Return what a case knows of the host, the secret excepted."""
        peer = 0 if self.peer is None else self.peer.pid
        return {
            "T_HOST": str(self.host),
            "T_HOME": str(self.home),
            "T_STATE": str(self.state),
            "T_PEER": str(peer),
            "T_PEERPGID": str(peer),
            "T_DAEMON": str(os.getpid()),
            "T_TCP": str(self.tcp_port),
            "T_OTHERPROXY": str(self.other_port),
            "T_UDP": str(self.udp_port),
            "T_FREE": str(self.free_port),
            "T_ABS": f"abstract-{self.mark}",
            "T_SOCK": str(self.state / "socket"),
            "T_SHMKEY": str(self.shm_key),
            "T_SHMNAME": self.shm_name,
            "T_TMPNAME": self.tmp_name,
            "T_JOBSECRET": self.job_secret,
            "T_MARK": self.mark,
        }

    def damage(self) -> Iterator[str]:
        """Yield what a case has done to the host."""
        if not self.victim.exists() or self.victim.read_text() != self.secret + "\n":
            yield "the victim was changed"
        elif self.victim.stat().st_mode & 0o7777 != 0o600:
            yield "the mode of the victim was changed"
        if self.peer is not None and self.peer.poll() is not None:
            yield "the peer is dead"

    def new_entries(self, allowed: str) -> Iterator[str]:
        """Yield what is new beside the victim, unless the host's own steps of the case name it."""
        for name in sorted(set(os.listdir(self.host)) - set(self.entries)):
            if name not in allowed:
                yield f"the host has a new entry: {name}"

    async def _serve(self) -> None:
        """Serve the secret by TCP, UDP, and a unix socket with and without a path."""
        for _ in range(2):
            server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
            self._servers.append(server)
        self.tcp_port, self.other_port = (s.sockets[0].getsockname()[1] for s in self._servers)
        for address in (f"\0abstract-{self.mark}", str(self.state / "socket")):
            self._servers.append(await asyncio.start_unix_server(self._answer, address))
        loop = asyncio.get_running_loop()
        local = ("127.0.0.1", 0)
        transport, _ = await loop.create_datagram_endpoint(lambda: _Echo(self.secret), local)
        self._stack.callback(transport.close)
        self.udp_port = transport.get_extra_info("sockname")[1]
        with socket.socket() as probe:
            probe.bind(local)
            self.free_port = probe.getsockname()[1]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer HTTP with the host that was asked for, and everything else with the secret."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.read(4096)
            if first.startswith(b"GET "):
                body = b"\n".join(li for li in first.splitlines() if li.lower().startswith(b"host"))
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n"
                writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
            else:
                writer.write(self.secret.encode())
            await writer.drain()
        writer.close()

    def _share_memory(self) -> None:
        shm = Path("/dev/shm") / self.shm_name
        shm.write_text(self.secret)
        shm.chmod(0o600)
        self._stack.callback(shm.unlink, missing_ok=True)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.shmat.restype = ctypes.c_void_p
        self.shm_key = int.from_bytes(os.urandom(3), "big") | 1
        segment = libc.shmget(self.shm_key, _BYTES, _IPC_CREAT | 0o666)
        address = libc.shmat(segment, None, 0)
        ctypes.memmove(address, self.secret.encode(), len(self.secret))
        libc.shmdt(ctypes.c_void_p(address))
        self._stack.callback(libc.shmctl, segment, _IPC_RMID, None)


class _Echo(asyncio.DatagramProtocol):
    def __init__(self, secret: str) -> None:
        self._secret = secret

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember by what to answer."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer with the secret."""
        self._transport.sendto(self._secret.encode(), addr)  # type: ignore[attr-defined]
