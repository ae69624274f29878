"""Runs commands that try to end the very process that spawns them; a program of its own, which a test watches die or not.

``python -m tests.contract.hostile_commands TIER FOLDER COUNT SCRIPT``
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sandbox.base import ExecRequest, SandboxRequest, Tier
from sandbox.filesystem.provider import FilesystemProvider


async def run(tier: str, root: str, count: int, script: str) -> None:
    """Run the script in one sandbox after the other; print what the last one said."""
    provider = FilesystemProvider(
        Path(root), owner_label="hostile", tier=Tier.parse(tier), allow_plain=True
    )
    await provider.probe()
    said = b""
    for number in range(count):
        sandbox = await provider.create(SandboxRequest(name=f"h-{number}", min_tier=Tier.PLAIN))
        cwd = sandbox.inside("/job/src")
        request = ExecRequest(argv=("/bin/sh", "-c", script), env={}, cwd=cwd)
        command = await sandbox.exec(request)
        said = b"".join([piece async for piece in command.stream()])
        await command.wait()
        await sandbox.destroy()
    await provider.close()
    sys.stdout.buffer.write(said)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
