"""Tries every wall of a sandbox on this host, from inside; what a tier says of itself is one thing, what holds another.

Called by ``runner sandbox check``. The small sibling of the cases in tests/cases/escape.json.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sandbox.base import Capabilities, ExecRequest, Network, SandboxRequest, Tier, Wall
from sandbox.filesystem.provider import FilesystemProvider
from sandbox.filesystem.sandbox import FilesystemSandbox

_TIMEOUT_S = 20.0
_NAME = "check"
_PARENT = "/var/tmp"  # noqa: S108  # jobs of root must be able to reach it, and a folder of our own is made in it
_PRIVATE = 0o600
_HOW = {
    Wall.FS_WRITE: ("a mount namespace with a read-only root", "Landlock rules"),
    Wall.FS_READ: ("a mount namespace without homes", "Landlock rules"),
    Wall.PROCESSES: ("a PID namespace", "Landlock scopes; /proc stays visible"),
    Wall.PROTECT: ("read-only mounts", "changes are told with the result"),
    Wall.SYSCALLS: ("seccomp", "seccomp"),
    Wall.METADATA: (
        "a mount namespace",
        "a user that owns nothing of the host, if root started it",
    ),
    Wall.TREE_KILL: ("the init of a PID namespace", "a search for descendants"),
    Wall.NETWORK: ("a network namespace when it is off", "no sockets when it is off"),
    Wall.JOB_UID: ("a user for each sandbox", "a user for each sandbox"),
}
"""By what the bubblewrap and the Landlock tier hold a wall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WallCheck:
    """One wall of this host."""

    wall: Wall
    held: bool
    """The tier promises it, and it withstood."""
    broken: bool
    """The tier promises it, and it did not withstand."""
    how: str


async def check_walls(tier: Tier | None) -> tuple[Capabilities, list[WallCheck]]:
    """Make a sandbox with the network off, if it can be, and try its walls; nothing is left of it.

    Args:
        tier: Exactly this one, or None for the strongest that works.

    Raises:
        SandboxUnavailableError: There is no sandbox at all, or not of this tier.
    """
    root = Path(tempfile.mkdtemp(prefix="runner-check-", dir=_PARENT))
    provider = FilesystemProvider(
        root, owner_label=f"check-{os.getpid()}", tier=tier, allow_plain=True
    )
    try:
        capabilities = await provider.probe()
        network = Network.ON if capabilities.tier is Tier.PLAIN else Network.OFF
        sandbox = await provider.create(
            SandboxRequest(name=_NAME, min_tier=Tier.PLAIN, network=network)
        )
        async with _Host(sandbox, root / _NAME) as host:
            checks = [await _check(wall, host, capabilities.tier) for wall in Wall]
        return capabilities, checks
    finally:
        await provider.close()


async def _check(wall: Wall, host: _Host, tier: Tier) -> WallCheck:
    withstood = await _PROBES[wall](host)
    promised = wall not in host.sandbox.info.walls_not_held
    walled = tier is not Tier.PLAIN or wall is Wall.JOB_UID
    how = _HOW[wall][0 if tier is Tier.BWRAP else 1] if walled else "nothing"
    return WallCheck(
        wall=wall, held=promised and withstood, broken=promised and not withstood, how=how
    )


class _Host:
    """What a command must not reach, owned by the very user that it runs as."""

    def __init__(self, sandbox: FilesystemSandbox, workspace: Path) -> None:
        self.sandbox = sandbox
        self.workspace = workspace
        self.uid = (workspace / "home").stat().st_uid
        self.folder = workspace.parent / ".checked"
        self.secret = os.urandom(8).hex()

    async def __aenter__(self) -> Self:
        self.folder.mkdir(mode=0o700)
        self.file = self.folder / "file"
        self.file.write_text(self.secret)
        self.file.chmod(_PRIVATE)
        for path in (self.folder, self.file):
            os.chown(path, self.uid, self.uid)
        self.ours = self.folder / "ours"
        self.ours.touch(mode=_PRIVATE)
        return self

    async def __aexit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    async def run(self, script: str, cwd: str = "/job/src") -> tuple[int, str]:
        """Run a script inside; return its exit code and what it printed."""
        request = ExecRequest(
            argv=("/bin/sh", "-c", script),
            env={},
            cwd=self.sandbox.inside(cwd),
            timeout_s=_TIMEOUT_S,
            grace_s=0,
        )
        command = await self.sandbox.exec(request)
        output = b"".join([piece async for piece in command.stream()])
        return (await command.wait()).exit_code, output.decode("utf-8", "replace")

    @contextlib.asynccontextmanager
    async def listener(self) -> AsyncIterator[int]:
        """Answer on a port of the loopback with the secret; yield the port."""

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(self.secret.encode())
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()[1]


async def _cannot_write(host: _Host) -> bool:
    await host.run(f"echo x >{host.folder}/new; echo x >{host.file}")
    return not (host.folder / "new").exists() and host.file.read_text() == host.secret


async def _cannot_read(host: _Host) -> bool:
    _, output = await host.run(
        f"cat {host.file} /proc/1/root{host.file}; ln -s {host.file} l; cat l"
    )
    return host.secret not in output


async def _cannot_change_metadata(host: _Host) -> bool:
    # Of a file of this process' user: jobs of root have users that own nothing.
    await host.run(f"chmod 644 {host.ours}")
    return stat.S_IMODE(host.ours.stat().st_mode) == _PRIVATE


async def _cannot_see_processes(host: _Host) -> bool:
    me = os.getpid()
    code, _ = await host.run(f"kill -0 {me} 2>/dev/null || grep -q python /proc/{me}/comm")
    return code != 0


async def _cannot_change_checkout(host: _Host) -> bool:
    await host.run("mkdir -p r/.git/hooks; echo own >r/.git/hooks/pre-commit")
    await host.run("mv .git .g; cp -r .g .git; echo evil >.git/hooks/pre-commit", "/job/src/r")
    return (host.workspace / "job/src/r/.git/hooks/pre-commit").read_text() == "own\n"


async def _is_filtered(host: _Host) -> bool:
    _, output = await host.run("grep '^Seccomp:' /proc/self/status")
    return output.split() == ["Seccomp:", "2"]


async def _leaves_nothing(host: _Host) -> bool:
    beat = host.workspace / "job/src/beat"
    script = "while :; do echo x >>beat; sleep 0.05; done"
    await host.run(f"setsid sh -c '{script}' >/dev/null 2>&1 & while [ ! -e beat ]; do :; done")
    before = beat.stat().st_size
    await asyncio.sleep(0.3)
    return beat.stat().st_size == before


async def _cannot_connect(host: _Host) -> bool:
    async with host.listener() as port:
        _, output = await host.run(f"bash -c 'cat </dev/tcp/127.0.0.1/{port}'")
    return host.secret not in output


async def _is_not_root(host: _Host) -> bool:
    await host.run("echo x >mine")
    return (host.workspace / "job/src/mine").stat().st_uid != 0


_PROBES: dict[Wall, Callable[[_Host], Awaitable[bool]]] = {
    Wall.FS_WRITE: _cannot_write,
    Wall.FS_READ: _cannot_read,
    Wall.METADATA: _cannot_change_metadata,
    Wall.PROCESSES: _cannot_see_processes,
    Wall.PROTECT: _cannot_change_checkout,
    Wall.SYSCALLS: _is_filtered,
    Wall.TREE_KILL: _leaves_nothing,
    Wall.NETWORK: _cannot_connect,
    Wall.JOB_UID: _is_not_root,
}
