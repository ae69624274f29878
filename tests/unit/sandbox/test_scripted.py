"""What only the scripted sandbox does."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.base import ExecRequest, SandboxRequest
from sandbox.errors import SandboxBrokenError, SandboxUnavailableError
from sandbox.scripted import ScriptedProvider


async def start(provider, **env):
    """Start a command in a new sandbox."""
    sandbox = await provider.create(SandboxRequest(name="a-1"))
    return sandbox, await sandbox.exec(ExecRequest(argv=("x",), env=env, cwd="/job/src"))


async def test_create_can_fail():
    """A host without sandboxes can be played."""
    with pytest.raises(SandboxUnavailableError, match="no walls here"):
        await ScriptedProvider(fail_create="no walls here").create(SandboxRequest(name="a-1"))


async def test_destroy_fails_once():
    """The second try removes the sandbox."""
    provider = ScriptedProvider()
    sandbox, _ = await start(provider, SCRIPT_DESTROY_FAIL="busy", SCRIPT_SLEEP_S="1000")
    with pytest.raises(SandboxBrokenError, match="busy"):
        await sandbox.destroy()
    assert list(provider.live) == ["a-1"]
    await sandbox.destroy()
    assert provider.live == {}


async def test_output_ends_before_the_command():
    """A command that closed its output goes on."""
    _, command = await start(
        ScriptedProvider(), SCRIPT_OUTPUT="x", SCRIPT_CLOSE_OUTPUT="1", SCRIPT_SLEEP_S="1000"
    )
    async with asyncio.timeout(10):
        assert [piece async for piece in command.stream()] == [b"x"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(command.wait(), 0.01)
        await command.kill()
    assert (await command.wait()).stopped
