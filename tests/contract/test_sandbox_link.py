"""With pasta a job with a network has a namespace of its own: it reaches what the host reaches, but not the host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox import procfs
from sandbox.base import Network, SandboxRequest, Tier, Wall
from sandbox.errors import SandboxUnavailableError
from sandbox.filesystem.provider import FilesystemProvider
from sandbox.network.pasta import resolver_problem
from tests.contract.deviations import BWRAP
from tests.contract.sandbox_backends import Place, finish, read_until, until

PYTHON = ("/usr/bin/python3", "-I", "-S", "-c")


def pastas() -> list[int]:
    """Return the pastas of this host that were started for a sandbox."""
    found = []
    for stat in procfs.snapshot().values():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{stat.pid}/cmdline").read_bytes().split(b"\0")
            if stat.alive and words[0].endswith(b"pasta") and b"--config-net" in words:
                found.append(stat.pid)
    return found


@pytest.fixture
async def linked(reachable_dir: Path) -> AsyncIterator[Place]:
    """The bubblewrap tier with pasta; skipped where one of the two is missing."""
    provider = FilesystemProvider(reachable_dir, owner_label=f"link-{os.getpid()}", tier=Tier.BWRAP)
    try:
        await provider.probe()
    except SandboxUnavailableError as error:
        pytest.skip(f"bubblewrap does not work here: {error}")
    sandbox = await provider.create(SandboxRequest(name="linked", network=Network.ON))
    try:
        if Wall.NETWORK in sandbox.info.walls_not_held:
            # Not skipped: a machine with pasta would run all other tests through it.
            pytest.xfail("pasta (package passt) is not installed, or /dev/net/tun is root's alone")
        yield Place(BWRAP, provider, reachable_dir, sandbox)
    finally:
        await provider.close()
    assert not pastas()


async def test_the_host_is_out_of_reach(linked: Place) -> None:
    """Its loopback and its abstract sockets; what is required of the network is held."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    name = f"\0runner-test-{os.getpid()}"
    script = (
        "import socket, sys\n"
        f"for family, address in ((2, ('127.0.0.1', {port})), (1, {name!r})):\n"
        "    s = socket.socket(family); s.settimeout(3)\n"
        "    try: s.connect(address); print('open', address)\n"
        "    except OSError: print('closed')\n"
        "print(len(open('/proc/net/route').readlines()) > 1)\n"
    )
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(name)
        abstract.listen()
        async with server:
            output, _ = await linked.run(*PYTHON, script)
    assert output.split() == [b"closed", b"closed", b"True"]
    await linked.another(network=Network.ON, require=frozenset({"network"}))


async def test_pasta_ends_with_its_command(linked: Place) -> None:
    """However that ends."""
    output, _ = await linked.run("echo hello")
    assert output == b"hello\n"
    assert not pastas()
    command = await linked.start("echo ready; sleep 1000")
    await read_until(command.stream(), b"ready")
    assert len(pastas()) == 1
    await command.kill()
    await finish(command)
    assert not pastas()


async def test_pasta_ends_with_a_runner_that_is_killed(linked: Place) -> None:
    """Nobody is left to end it but its keeper."""
    program = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from sandbox.base import ExecRequest, SandboxRequest\n"
        "from sandbox.filesystem.provider import FilesystemProvider\n"
        "async def main():\n"
        "    p = FilesystemProvider(Path(sys.argv[1]), owner_label='killed-link')\n"
        "    s = await p.create(SandboxRequest(name='x'))\n"
        "    c = await s.exec(ExecRequest(argv=('/bin/sh', '-c', 'echo ready; sleep 1000'), env={}, cwd='/job'))\n"
        "    async for piece in c.stream(): print(piece.decode(), flush=True)\n"
        "asyncio.run(main())\n"
    )
    root = linked.root.parent / f"{linked.root.name}-killed"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(root), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"ready\n"
    assert len(pastas()) == 1
    process.kill()
    await process.wait()
    await until(lambda: not pastas())
    leftovers = FilesystemProvider(root, owner_label="killed-link")
    await leftovers.reap()
    await leftovers.close()
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize(
    ("text", "works"),
    [
        ("nameserver 10.0.0.1\n", True),
        ("", True),
        ("# nameserver 127.0.0.53\nsearch a.b\n", True),
        ("nameserver 127.0.0.53\n", False),
        ("nameserver 10.0.0.1\nnameserver ::1\n", False),
        ("nameserver fe80::1%eth0\n", True),
        ("nameserver what\n", True),
    ],
)
def test_name_servers_of_the_host_itself(text: str, *, works: bool) -> None:
    """Cannot be asked from a namespace."""
    assert (not resolver_problem(text)) == works
