"""A container that jobs of one project use one after the other: fast, cleaned in between, and never for anybody else."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest

from sandbox.base import ExecRequest, Network, SandboxRequest, Wall
from sandbox.container.engine import Engine, label_filter
from sandbox.container.provider import ContainerProvider
from sandbox.container.sandbox import ContainerSandbox
from sandbox.errors import SandboxBrokenError, SandboxUnavailableError
from sandbox.limits import MIB, Limit, Limits
from tests.contract.container_engine import settings_for
from tests.contract.engine_kinds import DOCKER
from tests.contract.sandbox_backends import a_sleep, finish, read_until, running

OWNER = f"reuse-{os.getpid()}"


PLACE = "sed -n 's:.*containers/\\([0-9a-f]*\\)/\\(userdata/\\)\\?hostname .*:\\1:p' /proc/self/mountinfo"
"""Tells one container from another."""


class Project:
    """Jobs of one provider, by number."""

    def __init__(self, provider: ContainerProvider) -> None:
        self.provider = provider
        self._number = 0

    async def sandbox(self, **changes: object) -> ContainerSandbox:
        """Return the sandbox of the next job."""
        self._number += 1
        values = {"reuse": True, "network": Network.OFF, **changes}
        return await self.provider.create(
            SandboxRequest(name=f"{OWNER}-{self._number}", **values)  # type: ignore[arg-type]
        )

    async def run(self, script: str, **changes: object) -> tuple[bytes, int]:
        """Run the next job; return its output and exit code."""
        sandbox = await self.sandbox(**changes)
        command = await sandbox.exec(
            ExecRequest(argv=("/bin/sh", "-c", script), env={"A": "a"}, cwd="/job/src")
        )
        output, result = await finish(command)
        await sandbox.destroy()
        return output, result.exit_code


@pytest.fixture
async def project(container_engine):
    """A provider with two slots, which leaves nothing."""
    provider = ContainerProvider(
        settings_for(container_engine, slots=2, cache_prefix=OWNER), owner_label=OWNER
    )
    yield Project(provider)
    await provider.close()
    engine = Engine(settings_for(container_engine))
    await engine.connect()
    assert await engine.remove_volume(f"{OWNER}-default")  # one of the jobs wants a cache
    mine = {"filters": label_filter(f"runner.owner={OWNER}")}
    assert await engine.get_json("/containers/json", all="true", **mine) == []
    assert not (await engine.get_json("/volumes", **mine))["Volumes"]
    await engine.close()


async def test_the_next_job_finds_nothing_of_the_one_before(project: Project, engine_kind):
    """Files, links, processes, memory and names of it are gone; the container is the same, and is said to hold less."""
    sleep = a_sleep()  # not a short number: the command lines of an engine are full of digits
    mess = (
        f"{PLACE}; cd /job; touch src/f .hidden src/.h /tmp/t ~/h /dev/shm/s; ln -s /etc src/l;"
        " mkdir -p src/d/e; echo x >src/d/e/f; chmod 0 src/d; chmod 777 src;"
        f" (trap '' TERM HUP; while :; do sleep {sleep}; done) & exit 0"
    )
    first, code = await project.run(mess)
    assert code == 0
    look = (
        f"{PLACE}; find /job /tmp ~ /dev/shm -mindepth 1 | sort; stat -c %a /job/src ~;"
        f" ps | grep -c '[s]leep {sleep}'; echo $A$t"
    )
    output, _ = await project.run(look)
    home = b"700" if engine_kind == DOCKER else b"1777"  # Podman knows no owner of memory
    assert output == first + b"/job/ci\n/job/src\n755\n" + home + b"\n0\na\n"
    assert running(sleep) == []
    sandbox = await project.sandbox()
    assert {Wall.FS_READ, Wall.PROCESSES, Wall.TREE_KILL} <= {*sandbox.info.walls_not_held}
    await sandbox.destroy()


async def test_a_workspace_that_was_replaced_is_made_anew(project: Project):
    """A link in its place is not followed, and the container goes on."""
    first, _ = await project.run(f"{PLACE}; rm -rf /job/src; ln -s /tmp /job/src")
    output, code = await project.run(f"{PLACE}; pwd -P; touch x; ls /tmp")
    assert (output, code) == (first + b"/job/src\n", 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"project": "other"},
        {"network": Network.ON},
        {"limits": Limits(memory_bytes=64 * MIB)},
        {"cache": True},
        {"reuse": False},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_nobody_else_gets_it(project: Project, changes):
    """Another project, network, bound, cache, or a job that does not consent has a container of its own."""
    first, _ = await project.run(PLACE)
    other, _ = await project.run(PLACE, **changes)
    assert other != first
    assert (await project.run(PLACE))[0] == first


async def test_a_job_that_ends_badly_takes_its_container_along(project: Project):
    """A failure, a lack of memory, a stop: what is left then is not looked for, but removed."""
    small = Limits(memory_bytes=32 * MIB)
    first, _ = await project.run(PLACE, limits=small)
    sandbox = await project.sandbox(limits=small)
    script = f"{PLACE}; head -c 200m /dev/zero | tail"
    request = ExecRequest(argv=("/bin/sh", "-c", script), env={}, cwd="/job/src")
    output, result = await finish(await sandbox.exec(request))
    assert (output[: len(first)], result.exceeded) == (first, Limit.MEMORY)
    await sandbox.destroy()
    hidden, code = await project.run(PLACE, limits=small)
    sandbox = await project.sandbox(limits=small)
    # The kernel looks for a second victim while the first one still dies: it takes one that asks for it, not the shell.
    hungry = "(echo 1000 >/proc/self/oom_score_adj; head -c 200m /dev/zero | tail) 2>&-"
    script = f"{PLACE}; {hungry}; exit 0"
    request = ExecRequest(argv=("/bin/sh", "-c", script), env={}, cwd="/job/src")
    output, result = await finish(await sandbox.exec(request))
    assert (output, result.exceeded, result.exit_code) == (hidden, Limit.MEMORY, 0)
    await sandbox.destroy()
    second, code = await project.run(f"{PLACE}; exit 3", limits=small)
    assert (second != first, code) == (True, 3)
    assert (await project.run(PLACE, limits=small))[0] not in {first, second}


async def test_a_stop_reaches_the_whole_tree(project: Project):
    """As in a container of its own: TERM to all, the command's own code, and the next job starts anew."""
    await project.run("true")
    sandbox = await project.sandbox()
    script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"
    request = ExecRequest(argv=("/bin/sh", "-c", script), env={}, cwd="/job/src")
    command = await sandbox.exec(request)
    await read_until(command.stream(), b"up\n")
    await command.stop(10)
    result = await command.wait()
    assert (result.exit_code, result.stopped) == (7, True)
    await sandbox.destroy()
    assert await project.run("echo ok") == (b"ok\n", 0)


async def test_output_that_looks_like_the_end_is_output(project: Project):
    """Each command has a mark of its own; without a line end, and in a flood, every byte arrives."""
    await project.run("true")
    output, _ = await project.run(
        "printf end-; head -c 3000000 /dev/zero | tr '\\0' e; printf end-"
    )
    assert output == b"end-" + b"e" * 3_000_000 + b"end-"


async def test_what_is_trusted_is_for_one_job(project: Project, tmp_path):
    """A container with something in /job/ci, which no job can remove, serves no other job."""
    (tmp_path / "check").write_text("x")
    sandbox = await project.sandbox()
    await sandbox.upload(tmp_path, "ci")
    script = f"{PLACE}; ls /job/ci"
    request = ExecRequest(argv=("/bin/sh", "-c", script), env={}, cwd="/job/src")
    output, _ = await finish(await sandbox.exec(request))
    await sandbox.destroy()
    other, _ = await project.run(script)
    assert other.count(b"\n") == 1
    assert other not in output


async def test_two_at_once_have_two(project: Project):
    """A container serves one job at a time, and as many wait for jobs as there are slots."""
    sandboxes = [await project.sandbox() for _ in range(2)]
    request = ExecRequest(argv=("/bin/sh", "-c", PLACE), env={}, cwd="/job/src")
    places = {(await finish(await each.exec(request)))[0] for each in sandboxes}
    await asyncio.gather(*(each.destroy() for each in sandboxes))
    assert len(places) == 2
    assert (await project.run(PLACE))[0] in places


async def test_a_wall_that_it_does_not_hold_can_be_required(project: Project):
    """Who insists on it is refused by name."""
    with pytest.raises(SandboxUnavailableError, match="processes"):
        await project.sandbox(require=frozenset({"processes"}))


async def test_a_container_that_was_killed_meanwhile(project: Project, container_engine):
    """Whatever happened to one that waited: the next job has a new one."""
    await project.run("true")
    engine = Engine(settings_for(container_engine))
    await engine.connect()
    mine = {"filters": label_filter(f"runner.owner={OWNER}")}
    for each in await engine.get_json("/containers/json", **mine):
        await engine.kill(each["Id"], "KILL")
        with contextlib.suppress(SandboxBrokenError):  # it was noticed and removed already
            await engine.wait(each["Id"])
    await engine.close()
    assert await project.run("echo ok") == (b"ok\n", 0)
