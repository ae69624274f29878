"""The end of a command in a container of its own: told by the kernel and the launcher where they can, else by the engine."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os

import pytest

from sandbox.base import ExecRequest, ExecResult, Network, SandboxRequest
from sandbox.container import launcher
from sandbox.container.first_process import FirstProcess
from sandbox.container.provider import ContainerProvider
from sandbox.limits import MIB, Limit, Limits
from tests.contract.container_engine import settings_for
from tests.contract.sandbox_backends import finish, read_until

OWNER = f"ends-{os.getpid()}"
MARK = "\x1eforged"
_numbers = itertools.count(1)


@pytest.fixture
async def provider(container_engine):
    """A provider whose engine is on this host."""
    made = ContainerProvider(settings_for(container_engine), owner_label=OWNER)
    await made.probe()
    yield made
    await made.close()


class Answers:
    """What the engine has answered; to be asked when a container has ended it answers only while ``tells`` is set."""

    def __init__(self) -> None:
        self.tells = asyncio.Event()
        self.tells.set()
        self.to: list[str] = []

    async def between(self, request, send):
        """Stand between a provider and its engine."""
        answer = await send(request)
        what = f"{request.method} {request.url.path.rpartition('/')[2]}"
        if what == "POST wait":
            await self.tells.wait()
        self.to.append(what)
        return answer


@pytest.fixture
def answers(provider, watch_requests) -> Answers:
    """Return what the engine answers from now on."""
    made = Answers()
    watch_requests(provider, made.between)
    return made


async def run(provider: ContainerProvider, script: str, **more: object) -> tuple[bytes, ExecResult]:
    """Run one job; return its output and how it ended."""
    request = SandboxRequest(name=f"{OWNER}-{next(_numbers)}", network=Network.OFF, **more)  # type: ignore[arg-type]
    sandbox = await provider.create(request)
    command = await sandbox.exec(
        ExecRequest(argv=("/bin/sh", "-c", script), env={}, cwd="/job/src")
    )
    ended = await finish(command)
    await sandbox.destroy()
    return ended


async def test_a_good_end_is_not_waited_for_at_the_engine(provider, answers):
    """The kernel knows 50 ms before it; the output is whole, and the container is removed once the engine knows."""
    answers.tells.clear()
    sandbox = await provider.create(SandboxRequest(name=f"{OWNER}-good", network=Network.OFF))
    script = "seq 20000; printf 'no end of line\\036'"
    command = await sandbox.exec(
        ExecRequest(argv=("/bin/sh", "-c", script), env={}, cwd="/job/src")
    )
    output, result = await finish(command)
    assert result == ExecResult(exit_code=0)
    assert output == b"".join(b"%d\n" % n for n in range(1, 20001)) + b"no end of line\x1e"
    before = len(answers.to)
    answers.tells.set()
    await sandbox.destroy()
    assert answers.to[before] == "POST wait"


@pytest.mark.parametrize("script", ["exit 3", "kill -9 $$", "sleep 600 >/dev/null 2>&1 & exit 0"])
async def test_every_other_end_is_the_engines(provider, answers, script):
    """Also that of a command which leaves somebody behind."""
    _, result = await run(provider, script)
    assert result.exit_code == {"exit 3": 3, "kill -9 $$": 137}.get(script, 0)
    # It was asked for all that it knows of the container, after the end.
    assert "GET json" in answers.to[answers.to.index("POST wait") :]


async def test_an_end_that_cannot_be_seen_is_the_engines(provider, monkeypatch):
    """The kernel watches no more descriptors: the command goes on until its own end."""

    async def fail(first):
        raise OSError(errno.ENOSPC, "no room to watch")

    monkeypatch.setattr(FirstProcess, "gone", fail)
    monkeypatch.setattr("sandbox.container.command.OUTPUT_END_S", 0.1)
    output, result = await run(provider, "echo begun; sleep 1; exit 3")
    assert (output, result.exit_code) == (b"begun\n", 3)


async def test_a_kill_for_memory_below_a_good_end(provider):
    """The command itself ended with 0; which of its processes died the engine says."""
    limits = Limits(memory_bytes=32 * MIB)
    # The kernel looks for a second victim while the first one still dies: it takes one that asks for it, not the shell.
    hungry = (
        "(echo 1000 >/proc/self/oom_score_adj; head -c 200m /dev/zero | tail) 2>&-; echo survived"
    )
    output, result = await run(provider, hungry, limits=limits)
    assert output == b"survived\n"
    assert (result.exit_code, result.exceeded) == (0, Limit.MEMORY)


async def test_a_forged_end_is_none(provider, monkeypatch):
    """Whoever knows the mark has said it too soon: nothing ends before its processes do, and what comes behind it makes it output."""
    monkeypatch.setattr(launcher, "new_end_mark", lambda: MARK)
    sandbox = await provider.create(SandboxRequest(name=f"{OWNER}-forged", network=Network.OFF))
    script = f"printf 'a{MARK}000.b\\n'; while [ ! -e go ]; do sleep 0.1; done; seq 1000; exit 3"
    command = await sandbox.exec(
        ExecRequest(argv=("/bin/sh", "-c", script), env={}, cwd="/job/src")
    )
    begun = await read_until(command.stream(), b"b\n")
    waiting = asyncio.ensure_future(finish(command))
    done, _ = await asyncio.wait({waiting}, timeout=0.5)
    assert not done
    assert await provider._engine.run_inside(
        command._container, ("touch", "/job/src/go"), command._user
    )
    rest, result = await asyncio.wait_for(waiting, 30)
    numbers = b"".join(b"%d\n" % n for n in range(1, 1001))
    assert begun + rest == f"a{MARK}000.b\n".encode() + numbers
    assert result.exit_code == 3
    await sandbox.destroy()
