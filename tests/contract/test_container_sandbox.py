"""What only containers promise: hardening, secrets that no engine keeps, images, and nothing left in the engine."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys

import pytest

from sandbox.base import Command, ExecRequest, Network, SandboxRequest
from sandbox.container.command import ContainerCommand
from sandbox.container.engine import Engine, label_filter
from sandbox.container.hardening import OWNER_LABEL, SANDBOX_LABEL
from sandbox.container.provider import ContainerProvider
from sandbox.container.settings import PullPolicy
from sandbox.errors import (
    CommandNotStartedError,
    EngineGoneError,
    ImageMissingError,
    SandboxUnavailableError,
    TransferRefusedError,
)
from sandbox.limits import MIB, Keeper, Limit, Limits
from tests.contract.container_engine import EMPTY_IMAGE, IMAGE, settings_for
from tests.contract.deviations import CONTAINER
from tests.contract.engine_kinds import DOCKER
from tests.contract.sandbox_backends import (
    DEADLINE_S,
    Place,
    a_sleep,
    finish,
    opened_place,
    read_until,
    running,
    until,
)

CANARY = "canary-51cd-of-containers"


@pytest.fixture
async def place(container_engine):
    """A sandbox of an engine that all tests share."""
    async for each in opened_place(CONTAINER, container_engine):
        yield each


async def made_by(engine: Engine, owner: str) -> list[str]:
    """Return the names of all containers and volumes of an owner."""
    filters = {"filters": label_filter(f"runner.owner={owner}")}
    containers = await engine.get_json("/containers/json", all="true", **filters)
    volumes = (await engine.get_json("/volumes", **filters))["Volumes"] or []
    return sorted([each["Names"][0] for each in containers] + [each["Name"] for each in volumes])


async def test_volumes_of_an_image_are_known_by_their_owner(place: Place, engine: Engine):
    """So what an engine leaves that dies in between is found; and they go with the sandbox."""

    async def sandboxes() -> list[str]:
        found = (await engine.get_json("/volumes"))["Volumes"] or []
        own = [each["Labels"] for each in found if not each["Name"].startswith("runner-")]
        assert all(OWNER_LABEL in labels for labels in own)
        return [labels[SANDBOX_LABEL] for labels in own]

    before = await sandboxes()
    sandbox = await place.another()
    command = await place.start("echo up; sleep 1000", sandbox=sandbox)
    await read_until(command.stream(), b"up")
    (_,) = set(await sandboxes()) - set(before)
    await sandbox.destroy()
    assert set(await sandboxes()) <= set(before)


async def test_every_wall_is_up(place: Place):
    """A command is nobody, can become nobody else, and writes nowhere but in its own folders."""
    script = (
        "id -u; id -g; grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status;"
        " ls /dev/sda /dev/mem /var/run/docker.sock /run/docker.sock 2>/dev/null;"
        " for d in / /usr /etc /run /job/ci; do touch $d/x 2>/dev/null && echo wrote $d; done;"
        ' for d in /tmp "$HOME" /job /job/src /dev/shm; do touch $d/x || echo no $d; done;'
        " ls /sys/class/net"
    )
    output, _ = await place.run(script, sandbox=await place.another(network=Network.OFF))
    words = output.decode().split()
    status = ["CapBnd:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2"]
    assert words == ["1000", "1000", *status, "lo"]


async def test_a_secret_is_neither_shown_nor_kept_by_the_engine(
    place: Place, engine, container_engine, engine_kind
):
    """A value of the environment is in no answer of the engine and in no file of it, while the command runs."""
    command = await place.start('echo "$TOKEN" | wc -c; sleep 1000', env={"TOKEN": CANARY})
    await read_until(command.stream(), b"\n")
    names = await made_by(engine, f"contract-{os.getpid()}")
    # The command, the files, the volume, and the one that the image asks for, which Podman does not label.
    assert len(names) == (4 if engine_kind == DOCKER else 3)
    for name in names[:2]:
        assert CANARY not in json.dumps(await engine.get_json(f"/containers{name}/json"))
    found = subprocess.run(
        ["grep", "-rl", CANARY, container_engine / "data", container_engine / "exec"],
        capture_output=True,
        check=False,
    )
    assert found.stdout == b""
    assert running(CANARY) == []
    await command.kill()


async def test_what_is_made_says_whose_it_is(place: Place, engine, engine_kind):
    """Containers and volumes carry owner, sandbox, job and attempt."""
    sandbox = await place.provider.create(SandboxRequest(name="01m7abc-3", image=IMAGE))
    facts = await engine.get_json("/containers/runner-01m7abc-3-files/json")
    labels = facts["Config"]["Labels"]
    assert (labels["runner.job"], labels["runner.attempt"]) == ("01m7abc", "3")
    assert (labels["runner.owner"], labels["runner.sandbox"]) == (
        f"contract-{os.getpid()}",
        "01m7abc-3",
    )
    volume = await engine.get_json("/volumes/runner-01m7abc-3")
    assert volume["Labels"] == {**labels}
    # An image that was made here has no digest of a registry, but Podman gives it one.
    name = "" if engine_kind == DOCKER else "docker.io/library/runner-test@"
    assert sandbox.info.image.startswith(f"{name}sha256:")


async def test_nothing_is_left(place: Place, engine):
    """After destroy and close the engine holds nothing of ours but images."""
    command = await place.start("sleep 1000")
    await place.another()
    await place.sandbox.destroy()
    assert (await command.wait()).exit_code == 137
    await place.provider.close()
    assert await made_by(engine, f"contract-{os.getpid()}") == []


async def test_more_memory_than_allowed_is_said(place: Place):
    """The kernel's kill for memory is told from every other."""
    sandbox = await place.another(limits=Limits(memory_bytes=32 * MIB, pids=50))
    assert [(kept.limit, kept.by) for kept in sandbox.info.limits] == [
        (Limit.MEMORY, kept_by(sandbox)),
        (Limit.PIDS, kept_by(sandbox)),
    ]
    _, result = await place.run("head -c 200m /dev/zero | tail", sandbox=sandbox)
    assert result.exceeded is Limit.MEMORY
    _, result = await place.run("exit 9", sandbox=sandbox)
    assert (result.exit_code, result.exceeded) == (9, None)


def kept_by(sandbox) -> Keeper:
    """Return what keeps the bounds here, one of two."""
    by = sandbox.info.limits[0].by
    assert by in {Keeper.CGROUP_V1, Keeper.CGROUP_V2}
    return by


async def test_a_bound_that_nothing_keeps_can_be_required_away(place: Place):
    """A job that insists on a bound of the disk, which no volume has, is refused with the name."""
    with pytest.raises(SandboxUnavailableError, match="disk"):
        await place.another(limits=Limits(disk_bytes=MIB), require=frozenset({"disk"}))
    with pytest.raises(SandboxUnavailableError, match="hosts"):
        await place.another(network=Network.HOSTS, hosts=("example.com",))


async def test_an_image_that_is_not_here(place: Place):
    """Without it there is no sandbox, the error names it, and nothing is fetched if nothing may be."""
    with pytest.raises(ImageMissingError, match="nobody/nothing:7"):
        await place.another(image="nobody/nothing:7")
    for name in ("Not A Name", "../../info?x=", "a b", "x/json?y", "-", "a:b#c", "x" * 600):
        with pytest.raises(ImageMissingError):
            await place.another(image=name)


async def test_an_image_without_a_shell(place: Place):
    """Every command needs /bin/sh; without it the reason is the command's own error."""
    sandbox = await place.another(image=EMPTY_IMAGE)
    command = await place.start("true", sandbox=sandbox)
    with pytest.raises(CommandNotStartedError, match="/bin/sh"):
        await finish(command)


async def test_the_image_sets_variables_and_the_job_wins(place: Place):
    """What the image sets is there, can be overridden, and is part of what the sandbox promises."""
    assert place.sandbox.base_env["FROM_IMAGE"] == "yes"
    output, _ = await place.run("echo $FROM_IMAGE $t", env={"FROM_IMAGE": "no", "t": "x"})
    assert output == b"no x\n"


async def test_ten_thousand_awkward_bytes_of_environment_arrive(place: Place):
    """Quotes, newlines, dollar signs and bytes that are no UTF-8 are values like any other."""
    value = "'\"$HOME`id`\\\n\t*; exit 3\udcff" * 400 + "'"
    output, _ = await place.run('printf %s "$V"', env={"V": value, "IFS": "x", "PS4": "$(id)"})
    assert output == value.encode("utf-8", "surrogateescape")


def held_back(command: Command) -> bool:
    """Tell whether a command waits for its reader."""
    assert isinstance(command, ContainerCommand)
    return command._output.paused


async def test_a_reader_that_reads_nothing_hinders_no_kill(place: Place):
    """Docker hangs in kill while an attached client does not read; ours does read then, and drops what is too much."""
    command = await place.start("cat /dev/zero")
    await until(lambda: held_back(command))
    async with asyncio.timeout(DEADLINE_S):
        await command.kill()
        output, result = await finish(command)
    assert (result.signal, result.stopped) == (signal.SIGKILL, True)
    assert len(output) > MIB / 2


async def test_a_slow_reader_holds_the_command_back(place: Place):
    """Nobody reads: the command waits after some MiB and loses nothing."""
    script = "i=0; echo 0 >count; while [ $i -lt 16 ]; do head -c 1048576 /dev/zero; i=$((i+1)); echo $i >count; done"
    command = await place.start(script)
    await until(lambda: held_back(command))
    looks = [b"", await place.sandbox.download("src/count", 100)]
    while len(looks) < 4 or len(set(looks[-3:])) > 1:  # until it stays the same
        looks.append(await place.sandbox.download("src/count", 100))
    assert int(looks[-1]) <= 5
    output, result = await finish(command)
    assert (len(output), result.exit_code) == (16 * MIB, 0)


async def test_source_and_checks_arrive_as_they_should(place: Place, tmp_path):
    """Modes and links are kept, who may change what is settled by owners, and a part can be left out."""
    (tmp_path / "run").write_text("echo ran\n")
    (tmp_path / "run").chmod(0o4755)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "secret").write_text("x")
    (tmp_path / "deep" / ("n" * 200)).write_bytes(b"long" * 1000)
    os.symlink("/etc/passwd", tmp_path / "link")
    await place.sandbox.upload(tmp_path, "src", frozenset({"deep/secret"}))
    await place.sandbox.upload(tmp_path, "ci")
    script = (
        "./run; stat -c '%a %u' run ../ci/run; readlink link; ls deep | wc -l; ls ../ci/deep | wc -l;"
        " cd ..; echo x >ci/run; rm -rf ci; mv ci ci2; chmod 777 ci; rm ci/run; ls ci | wc -l"
    )
    output, _ = await place.run(f"({script}) 2>/dev/null")
    assert output == b"ran\n755 1000\n755 0\n/etc/passwd\n1\n2\n3\n"


async def test_a_link_at_the_place_of_a_folder_is_not_followed(place: Place, tmp_path):
    """An upload over a link of the job is refused."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("new")
    await place.run("ln -s /tmp d")
    with pytest.raises(TransferRefusedError):
        await place.sandbox.upload(tmp_path, "src")


@pytest.mark.parametrize(
    ("script", "path"),
    [
        ("ln -s /etc/passwd f", "src/f"),
        ("mkdir a; ln -s /etc a/b", "src/a/b/passwd"),
        ("mkfifo p", "src/p"),
        ("mkdir x", "src/x"),
    ],
)
async def test_nothing_but_a_file_is_read(place: Place, script, path):
    """A job cannot make us read through a link, nor a FIFO or a folder."""
    await place.run(script)
    with pytest.raises((TransferRefusedError, FileNotFoundError)):
        await place.sandbox.download(path, MIB)


async def test_a_cancelled_upload_has_let_go(place: Place, tmp_path):
    """After a cancellation no file of the source is open, and the sandbox goes on."""
    for number in range(3000):
        (tmp_path / f"f{number}").write_bytes(b"x" * 3000)
    uploading = asyncio.create_task(place.sandbox.upload(tmp_path, "src"))

    def open_files() -> list[str]:
        links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
        paths = [os.readlink(link) for link in links if os.path.lexists(link)]
        return [path for path in paths if path.startswith(str(tmp_path))]

    await until(open_files)
    uploading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    assert open_files() == []
    assert (await place.run("exit 4"))[1].exit_code == 4


async def test_the_exit_code_of_a_stop_is_the_commands_own(place: Place):
    """Where the command made an end and a child of it had to be killed, its own code counts."""
    child = "trap '' TERM; echo up; while :; do sleep 0.05; done"
    command = await place.start(f"sh -c {shlex.quote(child)} & trap 'exit 6' TERM; wait; wait")
    await read_until(command.stream(), b"up")
    await command.stop(4)
    result = await command.wait()
    assert (result.exit_code, result.stopped) == (6, True)


PREDECESSOR = """
import asyncio, os, signal, sys
from pathlib import Path
from sandbox.base import ExecRequest, SandboxRequest
from sandbox.container.provider import ContainerProvider
from tests.contract.container_engine import settings_for

async def main(root, owner, sleep):
    provider = ContainerProvider(settings_for(Path(root)), owner_label=owner)
    sandbox = await provider.create(SandboxRequest(name="crashed-1"))
    argv = ("/bin/sh", "-c", f"echo up; sleep {sleep}")
    command = await sandbox.exec(ExecRequest(argv=argv, env={}, cwd="/job/src"))
    async for _ in command.stream():
        break
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_a_dead_agent_runner_left_is_found_and_removed(
    place: Place, engine, container_engine
):
    """By label, running or not; what belongs to others stays."""
    sleep = a_sleep()
    argv = [sys.executable, "-c", PREDECESSOR, str(container_engine), "crashed", sleep]
    with subprocess.Popen(argv) as predecessor:
        assert await asyncio.to_thread(predecessor.wait, DEADLINE_S) == -signal.SIGKILL
    assert running(sleep) != []
    mine = await made_by(engine, f"contract-{os.getpid()}")
    successor = ContainerProvider(settings_for(container_engine), owner_label="crashed")
    assert await successor.reap() == ["crashed-1"]
    assert await made_by(engine, "crashed") == []
    await until(lambda: not running(sleep))
    assert await made_by(engine, f"contract-{os.getpid()}") == mine != []
    assert await successor.reap() == []
    await successor.close()


async def test_no_engine_is_one_clear_error(tmp_path):
    """Nobody at the address: the probe says so, and the reason names the engine."""
    provider = ContainerProvider(settings_for(tmp_path), owner_label="nobody")
    with pytest.raises(SandboxUnavailableError, match="engine"):
        await provider.probe()
    with pytest.raises(EngineGoneError):
        await provider.reap()
    await provider.close()


async def test_a_cancelled_start_leaves_nothing(place: Place, engine):
    """Whatever was on its way when a start was cancelled is removed with the sandbox."""
    request = ExecRequest(argv=("/bin/sh", "-c", "sleep 1000"), env={}, cwd="/job/src")
    for delay in (0.0, 0.02, 0.1, 0.3):
        sandbox = await place.another()
        starting = asyncio.create_task(sandbox.exec(request))
        await asyncio.sleep(delay)
        starting.cancel()
        await asyncio.wait({starting})
        await sandbox.destroy()
    await place.sandbox.destroy()
    assert await made_by(engine, f"contract-{os.getpid()}") == []


async def test_pulling_is_not_tried_when_it_may_not(container_engine):
    """``never`` asks no registry; the image that is here is found."""
    settings = settings_for(container_engine, pull=PullPolicy.NEVER)
    provider = ContainerProvider(settings, owner_label="never")
    with pytest.raises(ImageMissingError):
        await provider.create(SandboxRequest(name="n-1", image="127.0.0.1:1/none:1"))
    await provider.close()
