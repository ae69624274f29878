"""What an operator can give jobs in containers: a cache, an engine inside, names of hosts; and what a job costs in calls."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from pathlib import Path

import pytest

from sandbox.base import ExecRequest, Network, SandboxRequest, Wall
from sandbox.container import images
from sandbox.container.engine import label_filter
from sandbox.container.provider import ContainerProvider
from sandbox.container.settings import Nesting
from sandbox.errors import SandboxError, SandboxUnavailableError
from sandbox.limits import MIB, Limits
from tests.contract.container_engine import on_docker, settings_for
from tests.contract.sandbox_backends import finish

OWNER = f"options-{os.getpid()}"
PREFIX = f"cache-{os.getpid()}"
_numbers = itertools.count(1)


@pytest.fixture
async def opened(container_engine):
    """Opens providers, and closes them."""
    made: list[ContainerProvider] = []

    def open_provider(**changes: object) -> ContainerProvider:
        settings = settings_for(container_engine, cache_prefix=PREFIX, **changes)
        made.append(ContainerProvider(settings, owner_label=OWNER))
        return made[-1]

    yield open_provider
    for provider in made:
        await provider.close()


async def run(provider: ContainerProvider, script: str, **asked: object) -> tuple[bytes, int]:
    """Run one job; return its output and exit code."""
    request = SandboxRequest(name=f"{OWNER}-{next(_numbers)}", **asked)  # type: ignore[arg-type]
    sandbox = await provider.create(request)
    command = await sandbox.exec(
        ExecRequest(argv=("/bin/sh", "-c", script), env={}, cwd="/job/src")
    )
    output, result = await finish(command)
    await sandbox.destroy()
    return output, result.exit_code


async def test_the_cache_of_a_project(opened, engine):
    """Its jobs find what the one before left, others do not; leftovers are removed without it, and it names itself."""
    provider = opened()
    try:
        assert (await run(provider, "echo x >/cache/f; echo $RUNNER_CACHE_DIR", cache=True))[
            0
        ] == b"/cache\n"
        assert await run(provider, "cat /cache/f", cache=True) == (b"x\n", 0)
        assert await run(provider, "ls /cache", cache=True, project="other") == (b"", 0)
        assert (await run(provider, "ls /cache"))[1] != 0
        assert await provider.reap() == []
        listed = await engine.get_json("/volumes", filters=label_filter("runner.cache"))
        mine = [each["Name"] for each in listed["Volumes"] if each["Name"].startswith(PREFIX)]
        assert sorted(mine) == [f"{PREFIX}-default", f"{PREFIX}-other"]
        everybody = opened(cache=True)
        assert await run(everybody, "cat /cache/f") == (b"x\n", 0)
    finally:
        for project in ("default", "other"):
            assert await engine.remove_volume(f"{PREFIX}-{project}")


async def test_the_engine_of_the_host_in_the_reach_of_a_job(opened):
    """Both have to want it; then it is there, usable by the job's own user, and no wall is said to hold."""
    provider = opened(nested=Nesting.DOOD)
    script = 'id -u; [ -S /run/docker.sock ] && [ -w /run/docker.sock ] && echo "$DOCKER_HOST"'
    output, _ = await run(provider, script, nested="dood")
    assert output == b"1000\nunix:///run/docker.sock\n"
    assert (await run(provider, script))[1] != 0
    sandbox = await provider.create(
        SandboxRequest(name="dood-1", nested="dood", limits=Limits(memory_bytes=64 * MIB))
    )
    assert {*sandbox.info.walls_not_held} == {*Wall}
    assert not any(kept.held for kept in sandbox.info.limits)
    await sandbox.destroy()
    with pytest.raises(SandboxUnavailableError, match="fs_read"):
        await provider.create(
            SandboxRequest(name="dood-2", nested="dood", require=frozenset({"fs_read"}))
        )


@on_docker
async def test_an_engine_of_its_own(opened):
    """The job is root with every right, has a place for the files of an engine, and a stop reaches it."""
    if int(re.findall(r"CapBnd:\s*(\w+)", Path("/proc/self/status").read_text())[0], 16) + 1 != (
        2 << int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    ):
        # Nobody can give away what he has not.
        provider = opened(nested=Nesting.DIND, allow_privileged=True)
        with pytest.raises(SandboxError, match="apply caps: operation not permitted"):
            await run(provider, "true", nested="dind")
        return
    provider = opened(nested=Nesting.DIND, allow_privileged=True)
    script = "id -u; mkdir m && mount -t tmpfs none m && touch /etc/x /var/lib/docker/y && umount m && echo ok"
    assert await run(provider, script, nested="dind") == (b"0\nok\n", 0)
    sandbox = await provider.create(SandboxRequest(name="dind-1", nested="dind"))
    request = ExecRequest(
        argv=("/bin/sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done"),
        env={},
        cwd="/job/src",
    )
    command = await sandbox.exec(request)
    await command.stop(15)
    assert (await command.wait()).exit_code in {7, 143}
    await sandbox.destroy()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"nested": Nesting.DOOD, "slots": 2}, "2 slots"),
        ({"nested": Nesting.DIND}, "allow_privileged"),
    ],
)
async def test_what_an_operator_must_not_set(opened, changes, why):
    """It is refused before there is a job, with the reason."""
    with pytest.raises(SandboxUnavailableError, match=why):
        await opened(**changes).probe()


async def test_a_job_alone_gets_no_engine(opened):
    """What the operator has not set, or has set otherwise, is refused."""
    for provider in (opened(), opened(nested=Nesting.DOOD)):
        with pytest.raises(SandboxUnavailableError, match="the operator allows"):
            await provider.create(SandboxRequest(name="alone-1", nested="dind"))


async def test_names_of_hosts(opened):
    """Jobs with a network find them, others do not; how to reach the engine's host is told where URLs come to name it."""
    provider = opened(
        extra_hosts=("db.test=10.1.2.3", "host.docker.internal=10.9.9.9"), rewrite_localhost=True
    )
    script = "grep -E 'db.test|host.docker' /etc/hosts"
    output, _ = await run(provider, script)
    assert output.split() == [b"10.1.2.3", b"db.test", b"10.9.9.9", b"host.docker.internal"]
    assert (await run(provider, script, network=Network.OFF))[1] == 1
    for network, host in ((Network.ON, "host.docker.internal"), (Network.OFF, "")):
        sandbox = await provider.create(SandboxRequest(name="names-1", network=network))
        assert sandbox.info.loopback == host
        await sandbox.destroy()


async def test_an_engine_that_comes_back_is_not_tried_again(opened, watch_requests):
    """A lost connection costs no container: the walls of the same engine were tried."""
    provider = opened()
    await provider.probe()
    asked: list[str] = []

    def note(request, send):
        asked.append(request.url.path)
        return send(request)

    watch_requests(provider, note)
    await provider._reconnect()
    await provider.probe()
    assert any(path.endswith("/info") for path in asked)
    assert not any(path.endswith("/containers/create") for path in asked)


async def test_no_container_starts_before_its_volume_is_filled(opened, watch_requests):
    """The engine fills it as root, and follows links; the image that would run meanwhile is the job's."""
    provider = opened(slots=1)
    await provider.probe()
    said: list[str] = []

    async def note(request, send):
        if request.url.path.endswith("/start"):
            said.append("start")
        answer = await send(request)
        if "-files" in str(request.url.query):
            await asyncio.sleep(0.2)  # a slow disk
            said.append("filled")
        return answer

    watch_requests(provider, note)
    await run(provider, "true", network=Network.OFF)
    assert said == ["filled", "start"]


@on_docker
async def test_how_often_the_engine_is_asked(opened, watch_requests, monkeypatch):
    """A job costs ten requests, of which two are beside others; the next one within a moment nine. One that finds a container: none."""
    provider = opened(slots=1)
    await provider.probe()
    asked: list[str] = []

    def count(request, send):
        asked.append(f"{request.method} {request.url.path}")
        return send(request)

    watch_requests(provider, count)
    monkeypatch.setattr(images, "RECENT_S", 600.0)  # the moment lasts, however slow this host is
    for expected in (10, 9):
        asked.clear()
        await run(provider, "true", network=Network.OFF)
        assert len(asked) == expected, asked
    await run(provider, "true", network=Network.OFF, reuse=True)
    asked.clear()
    await run(provider, "true", network=Network.OFF, reuse=True)
    assert asked == []
