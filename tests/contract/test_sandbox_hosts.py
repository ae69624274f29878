"""A sandbox that reaches a list of hosts, and nothing else: real namespaces, a real proxy, a real server on this host."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox import procfs
from sandbox.base import Network, Sandbox, SandboxRequest, Tier
from sandbox.errors import SandboxBrokenError, SandboxUnavailableError
from sandbox.filesystem.provider import FilesystemProvider
from tests.contract.deviations import BWRAP
from tests.contract.sandbox_backends import Place, finish, read_until, until

PYTHON = ("/usr/bin/python3", "-I", "-S", "-c")
ASK = """
import os, socket, sys
def ask(text):
    host, port = os.environ["HTTP_PROXY"].split("//")[1].strip("/").rsplit(":", 1)
    s = socket.create_connection((host, int(port)), 5)
    s.settimeout(5)
    s.sendall(text.encode())
    data = b""
    try:
        while piece := s.recv(4096): data += piece
    except OSError: pass
    return data.decode("latin-1")
"""


def proxies() -> list[int]:
    """Return the proxies of this process."""
    marked = b"sandbox.network.process"
    found = []
    for pid in procfs.own_children():
        with contextlib.suppress(OSError):
            if marked in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


@dataclass
class Hosts:
    """A sandbox with a list, and what it may reach."""

    place: Place
    sandbox: Sandbox
    port: int

    async def ask(self, script: str) -> str:
        """Run a script that can ask the proxy; return its output."""
        script = ASK + script.replace("PORT", str(self.port))
        output, result = await self.place.run(*PYTHON, script, sandbox=self.sandbox, timeout_s=60)
        assert result.exit_code == 0, output
        return output.decode()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request with what it asked for."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nSERVED " + head)
    await writer.drain()
    writer.close()


@pytest.fixture
async def hosts(reachable_dir: Path) -> AsyncIterator[Hosts]:
    """The bubblewrap tier; skipped where it does not work."""
    provider = FilesystemProvider(
        reachable_dir, owner_label=f"hosts-{os.getpid()}", tier=Tier.BWRAP
    )
    try:
        await provider.probe()
    except SandboxUnavailableError as error:
        pytest.skip(f"bubblewrap does not work here: {error}")
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    request = SandboxRequest(
        name="listed",
        network=Network.HOSTS,
        hosts=(f"allowed.test=127.0.0.1:{port}", "example.invalid"),
        require=frozenset({"network"}),
    )
    sandbox = await provider.create(request)
    async with server:
        yield Hosts(Place(BWRAP, provider, reachable_dir, sandbox), sandbox, port)
        await provider.close()
    assert not proxies()


async def test_a_listed_host_is_reached(hosts: Hosts) -> None:
    """By its name, through the proxy that the environment names; the server sees its own name."""
    output = await hosts.ask(
        'print(ask("GET http://allowed.test:PORT/x HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n"))'
    )
    assert "SERVED GET /x HTTP/1.1" in output
    assert "evil.test" not in output
    assert "runner:" not in output


async def test_a_refusal_is_a_line_of_the_log(hosts: Hosts) -> None:
    """Each one, on a line of its own, in the order of the output."""
    output = await hosts.ask(
        'print("before", end="", flush=True)\n'
        'ask("CONNECT evil.test:443 HTTP/1.1\\r\\n\\r\\n")\n'
        'ask("CONNECT 127.0.0.1:PORT HTTP/1.1\\r\\n\\r\\n")\n'
        'ask("CONNECT localhost:PORT HTTP/1.1\\r\\n\\r\\n")\n'
    )
    assert output.splitlines() == [
        "before",
        "runner: network refused CONNECT evil.test:443: not on the list",
        f"runner: network refused CONNECT 127.0.0.1:{hosts.port}: not on the list",
        f"runner: network refused CONNECT localhost:{hosts.port}: not on the list",
    ]


async def test_nothing_else_is_there(hosts: Hosts) -> None:
    """Neither the server itself, nor a name server, nor another interface than the loopback."""
    script = f"""
import socket
for address in (("127.0.0.1", {hosts.port}), ("1.1.1.1", 443), ("169.254.169.254", 80)):
    try: socket.create_connection(address, 2); print("open", address)
    except OSError as error: print("closed")
try: socket.getaddrinfo("example.com", 443); print("resolved")
except OSError: print("unknown")
print(sorted(name for _, name in socket.if_nameindex()))
"""
    output = await hosts.ask(script)
    assert output.splitlines()[:4] == ["closed", "closed", "closed", "unknown"]
    assert output.splitlines()[4] == "['lo']"


async def test_a_job_has_its_own_loopback(hosts: Hosts) -> None:
    """Beside the proxy's port everything is free."""
    output = await hosts.ask(
        "import socket\ns = socket.create_server(('127.0.0.1', 0))\n"
        "c = socket.create_connection(s.getsockname()); a, _ = s.accept(); c.send(b'x')\n"
        "print(a.recv(1).decode(), 'works')"
    )
    assert output == "x works\n"


async def test_each_command_has_a_proxy_of_its_own(hosts: Hosts) -> None:
    """Made before its first instruction, gone with it."""
    for _ in range(2):
        command = await hosts.place.start("echo ready; sleep 1000", sandbox=hosts.sandbox)
        await read_until(command.stream(), b"ready")
        assert len(proxies()) == 1
        await command.kill()
        assert not proxies()


async def test_two_jobs_do_not_share_a_proxy(hosts: Hosts) -> None:
    """What one may reach, another may not."""
    other = await hosts.place.provider.create(
        SandboxRequest(name="other", network=Network.HOSTS, hosts=("other.test",))
    )
    both = Hosts(hosts.place, other, hosts.port)
    request = 'print(ask("GET http://allowed.test:PORT/ HTTP/1.1\\r\\n\\r\\n")[:12])'
    outputs = await asyncio.gather(hosts.ask(request), both.ask(request))
    assert "HTTP/1.1 200" in outputs[0]
    assert "HTTP/1.1 403" in outputs[1]


async def test_a_proxy_that_dies_leaves_nothing_open(hosts: Hosts) -> None:
    """The job goes on without a network."""
    command = await hosts.place.start(
        *PYTHON,
        ASK + "print('ready', flush=True)\nimport time\n"
        "for _ in range(200):\n"
        "    try: ask('CONNECT evil.test:443 HTTP/1.1\\r\\n\\r\\n')\n"
        "    except OSError as error: print('refused by nobody', flush=True); break\n"
        "    time.sleep(0.1)\n",
        sandbox=hosts.sandbox,
        timeout_s=60,
    )
    stream = command.stream()
    await read_until(stream, b"ready")
    (pid,) = proxies()
    os.kill(pid, 9)
    assert b"refused by nobody" in await read_until(stream, b"nobody")
    await command.kill()


async def test_the_proxy_has_no_rights(hosts: Hosts) -> None:
    """It is the job's user, cannot gain anything, and holds no secret in its environment."""
    command = await hosts.place.start("echo ready; sleep 1000", sandbox=hosts.sandbox)
    await read_until(command.stream(), b"ready")
    (pid,) = proxies()
    assert procfs.real_uid(pid) == hosts.place.job_uid
    assert procfs.no_new_privs(pid)
    if os.geteuid() == 0:
        names = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert {name.partition(b"=")[0] for name in names} <= {
            b"RUNNER_OWNER",
            b"RUNNER_SANDBOX",
            b"",
        }
    await command.kill()


async def test_a_command_is_not_started_without_its_proxy(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails closed: not one instruction of the job runs."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    command = await hosts.place.start("touch ran; echo ran", sandbox=hosts.sandbox)
    with pytest.raises(SandboxBrokenError, match="no proxy for the list of hosts"):
        await finish(command)
    assert not (hosts.place.workspace / "job" / "src" / "ran").exists()


async def test_a_tier_that_cannot_filter_refuses(reachable_dir: Path) -> None:
    """A list is never taken for the whole network, nor for none."""
    provider = FilesystemProvider(
        reachable_dir, owner_label=f"no-hosts-{os.getpid()}", tier=Tier.PLAIN, allow_plain=True
    )
    request = SandboxRequest(
        name="listed", min_tier=Tier.PLAIN, network=Network.HOSTS, hosts=("a.b",)
    )
    with pytest.raises(SandboxUnavailableError, match="a list of hosts needs the tier bwrap"):
        await provider.create(request)
    await provider.close()


async def test_a_killed_command_ends_its_proxy(hosts: Hosts) -> None:
    """Also one whose sandbox is destroyed while it runs."""
    other = await hosts.place.provider.create(
        SandboxRequest(name="gone", network=Network.HOSTS, hosts=("other.test",))
    )
    command = await hosts.place.start("echo ready; sleep 1000", sandbox=other)
    await read_until(command.stream(), b"ready")
    await other.destroy()
    await until(lambda: not proxies())


async def test_a_bound_counts_while_the_proxy_starts(hosts: Hosts) -> None:
    """A command that is stopped before it began was stopped; its sandbox did not fail."""
    command = await hosts.place.start("sleep 1000", sandbox=hosts.sandbox, timeout_s=0.01)
    _, result = await finish(command)
    assert result.timed_out


async def test_a_start_that_is_given_up_leaves_nothing(hosts: Hosts) -> None:
    """Neither the command, which nobody knows of, nor its proxy."""
    starting = asyncio.ensure_future(hosts.place.start("sleep 1000", sandbox=hosts.sandbox))
    await until(lambda: bool(proxies()))
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    await until(lambda: not proxies())
    await hosts.ask("print('again')")
