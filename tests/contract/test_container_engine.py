"""An engine that dies in the middle, one behind TLS, and one that is no engine at all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from sandbox.base import ExecRequest, SandboxRequest
from sandbox.container import engine as engine_module
from sandbox.container import images
from sandbox.container.engine import Engine
from sandbox.container.failure import Operation
from sandbox.container.provider import ContainerProvider
from sandbox.container.settings import ContainerSettings, PullPolicy
from sandbox.errors import (
    EngineGoneError,
    ImageMissingError,
    SandboxBrokenError,
    SandboxError,
    SandboxUnavailableError,
)
from tests.contract.container_engine import RunningEngine, mortal_engine, settings_for
from tests.contract.engine_keeper import ask
from tests.contract.engine_kinds import ENGINES, missing_part
from tests.contract.sandbox_backends import DEADLINE_S, read_until, until

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=ENGINES)
def own_engine(request):
    """An engine of each kind for one test, which may end it."""
    if reason := missing_part(request.param):
        pytest.skip(reason)
    with mortal_engine(request.param) as engine:
        yield engine


def listed(engine: RunningEngine) -> bytes:
    """Return what the engine says of all its containers."""
    return ask(engine.root / "sock", "GET", "/containers/json?all=1")[1]


async def test_an_engine_that_dies_in_the_middle(own_engine: RunningEngine):
    """Who waits is told at once, with a reason of its own; nothing hangs; when it is back all goes on, and what was left is removed."""
    provider = ContainerProvider(settings_for(own_engine.root), owner_label="loser")
    sandbox = await provider.create(SandboxRequest(name="lost-1"))
    argv = ("/bin/sh", "-c", "echo up; sleep 1000")
    command = await sandbox.exec(ExecRequest(argv=argv, env={}, cwd="/job/src"))
    stream = command.stream()
    await read_until(stream, b"up\n")
    await asyncio.to_thread(own_engine.kill)
    async with asyncio.timeout(DEADLINE_S):
        assert [piece async for piece in stream] == []
        with pytest.raises(EngineGoneError):
            await command.wait()
        await command.stop(1)
        await command.kill()
        assert await command.processes() == []
        with pytest.raises(SandboxBrokenError):
            await sandbox.destroy()
        with pytest.raises(EngineGoneError):
            await provider.create(SandboxRequest(name="lost-2"))
    await asyncio.to_thread(own_engine.start)
    await until(lambda: b"lost-1" not in listed(own_engine))
    back = await provider.create(SandboxRequest(name="back-1"))
    command = await back.exec(ExecRequest(argv=argv, env={}, cwd="/job/src"))
    await read_until(command.stream(), b"up\n")
    assert b"back-1" in await asyncio.to_thread(listed, own_engine)
    await provider.close()


class _Certificates:
    """A CA and two certificates, made with openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._openssl("req", "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
        for name in ("server", "client"):
            usage = f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={name}Auth\n"
            (folder / f"{name}.ext").write_text(usage)
            self._openssl(
                "req", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr"
            )
            self._openssl(
                *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
                *("-CAcreateserial", "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
            )

    def _openssl(self, *words: str) -> None:
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        extra = new_key if words[0] == "req" else []
        subprocess.run(
            ["openssl", *words, *extra], cwd=self.folder, check=True, capture_output=True
        )

    def settings(self, port: int, ca: str = "ca.pem") -> ContainerSettings:
        """Return how a client reaches the server at a port."""
        return ContainerSettings(
            engine=f"tcp://127.0.0.1:{port}",
            ca_file=self.folder / ca,
            cert_file=self.folder / "client.pem",
            key_file=self.folder / "client.key",
        )


VERSION = b'{"ApiVersion": "1.41", "MinAPIVersion": "1.12"}'


@contextlib.asynccontextmanager
async def _serving(handle: Handler, **options: Any) -> AsyncIterator[int]:
    """Yield the port of a server; wait for the end of its connections."""
    running: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await handle(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async with await asyncio.start_server(connected, "127.0.0.1", 0, **options) as server:
        yield server.sockets[0].getsockname()[1]
    if running:
        await asyncio.wait(running)


def _answering(content: bytes, **options: Any) -> AbstractAsyncContextManager[int]:
    """Start a server that gives one answer to everything."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        await writer.drain()

    return _serving(answer, **options)


async def test_an_engine_behind_tls_on_both_sides(tmp_path: Path):
    """Both show a certificate of the CA; with another CA nobody talks."""
    certificates = _Certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca.pem")
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    async with _answering(VERSION, ssl=context) as port:
        engine = Engine(certificates.settings(port))
        assert await engine.connect() == "1.41"
        await engine.close()
        engine = Engine(certificates.settings(port, ca="client.pem"))
        with pytest.raises(EngineGoneError, match=r"(?i)certificate"):
            await engine.connect()
        await engine.close()


@pytest.mark.parametrize(
    ("newest", "oldest", "agreed"),
    [("1.41", "1.12", "1.41"), ("1.52", "1.44", "1.47"), ("1.40", "1.40", "1.40")],
)
async def test_the_newest_version_that_both_speak(newest, oldest, agreed):
    """The engine's newest, or ours if that is older."""
    said = f'{{"ApiVersion": "{newest}", "MinAPIVersion": "{oldest}"}}'.encode()
    async with _answering(said) as port:
        engine = Engine(ContainerSettings(engine=f"tcp://127.0.0.1:{port}"))
        assert await engine.connect() == agreed
        await engine.close()


@pytest.mark.parametrize(("newest", "oldest"), [("1.39", "1.12"), ("1.60", "1.48")])
async def test_no_version_in_common(newest, oldest):
    """Too old and too new are refused with both ranges."""
    said = f'{{"ApiVersion": "{newest}", "MinAPIVersion": "{oldest}"}}'.encode()
    async with _answering(said) as port:
        engine = Engine(ContainerSettings(engine=f"tcp://127.0.0.1:{port}"))
        with pytest.raises(SandboxUnavailableError, match=r"1\.40 to 1\.47"):
            await engine.connect()
        await engine.close()


@pytest.mark.parametrize("said", [b"hello", b"[]", b"{}", b'{"ApiVersion": "x"}'])
async def test_something_that_is_no_engine(said):
    """Whoever answers with something else is no engine, and that is one clear error."""
    async with _answering(said) as port:
        provider = ContainerProvider(
            ContainerSettings(engine=f"tcp://127.0.0.1:{port}"), owner_label="x"
        )
        with pytest.raises(SandboxUnavailableError, match="engine"):
            await provider.probe()
        await provider.close()


async def test_a_network_that_swallows_everything_is_noticed():
    """Whoever waits for the end of a command says nothing for hours; the kernel asks whether the other host is there."""
    async with _answering(VERSION) as port:
        engine = Engine(ContainerSettings(engine=f"tcp://127.0.0.1:{port}"))
        async with engine.stream(Operation.ASK, "GET", "/version") as answer:
            opened = answer.extensions["network_stream"].get_extra_info("socket")
            assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await engine.close()


async def test_a_registry_that_says_nothing(monkeypatch):
    """It has no image for us, and the engine, which answers, is not blamed."""
    monkeypatch.setattr(images, "PULL_IDLE_S", 0.5)
    blamed: list[SandboxError] = []

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await reader.read()

    async with _serving(begin) as port:
        engine = Engine(ContainerSettings(engine=f"tcp://127.0.0.1:{port}"), blamed.append)
        with pytest.raises(ImageMissingError, match="is silent"):
            await images.obtain(engine, "silent.example/x", PullPolicy.ALWAYS)
        await engine.close()
    assert not blamed


@pytest.mark.parametrize("failures", [1, engine_module.REMOVE_TRIES])
async def test_a_removal_that_meets_the_end_of_its_container(failures: int):
    """Podman fails then, and has nothing to object a moment later; what fails again and again is an error."""
    answers = [b"500 Broken"] * failures + [b"204 No Content"]
    message = b'{"message": "container state improper: stopped"}'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status = answers.pop(0)
        body = message if status.startswith(b"500") else b""
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
        await writer.drain()

    async with _serving(answer) as port:
        engine = Engine(ContainerSettings(engine=f"tcp://127.0.0.1:{port}"))
        ends = pytest.raises(SandboxBrokenError, match="improper")
        with contextlib.nullcontext() if failures == 1 else ends:
            await engine.remove("x")
        await engine.close()


@pytest.mark.parametrize("ended", [True, False])
async def test_a_signal_that_meets_the_end_of_its_container(ended: bool):
    """It reaches nobody, as one that is late; what is no end is an error."""
    said = b"is in state stopped: container state improper" if ended else b"no"
    body = b'{"message": "%s"}' % said

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 500 Broken\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        await writer.drain()

    async with _serving(answer) as port:
        engine = Engine(ContainerSettings(engine=f"tcp://127.0.0.1:{port}"))
        with contextlib.nullcontext() if ended else pytest.raises(SandboxBrokenError, match="no"):
            assert await engine.kill("x", "KILL") is False
        await engine.close()
