"""What crosses the walls of a sandbox as files: uploads, downloads, and the end of a workspace."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import stat
from pathlib import PurePath

import pytest

from sandbox.base import SandboxRequest, Tier
from sandbox.errors import SandboxBrokenError, TransferRefusedError
from sandbox.filesystem.workspace import SPARE_PREFIX
from tests.contract.deviations import SCRIPTED
from tests.contract.sandbox_backends import (
    ALL_BACKENDS,
    DEADLINE_S,
    FILESYSTEM_BACKENDS,
    open_place,
    until,
)

CANARY = b"canary-77aa"


@pytest.fixture(params=ALL_BACKENDS)
async def place(request, reachable_dir):
    """Every backend."""
    async for each in open_place(request, reachable_dir):
        yield each


@pytest.fixture(params=FILESYSTEM_BACKENDS)
async def real(request, reachable_dir):
    """Every backend that runs processes."""
    async for each in open_place(request, reachable_dir):
        yield each


async def test_upload_then_download(place, tmp_path):
    """What goes in comes out, below the target, which is made."""
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "f\n1").write_bytes(b"\0\xff")
    await place.sandbox.upload(tmp_path, "src/deep/er")
    assert await place.sandbox.download("src/deep/er/a b/f\n1", 10) == b"\0\xff"


async def test_download_of_nothing(place):
    """A missing file is FileNotFoundError."""
    with pytest.raises(FileNotFoundError):
        await place.sandbox.download("src/none", 10)
    with pytest.raises(FileNotFoundError):
        await place.sandbox.download("src/none/none", 10)


@pytest.mark.parametrize(
    "path", ["../home/f", "src/../../home/f", "/etc/passwd", "..", "/", "src/\ud800", "\ud800/f"]
)
async def test_path_outside_is_refused(place, tmp_path, path):
    """A path that leaves the job root is refused, whether it exists or not."""
    with pytest.raises(TransferRefusedError):
        await place.sandbox.download(path, 1 << 20)
    with pytest.raises(TransferRefusedError):
        await place.sandbox.upload(tmp_path, path)


async def test_download_limit(place, tmp_path):
    """A file of exactly the limit is read, a longer one refused."""
    (tmp_path / "f").write_bytes(b"x" * 100)
    await place.sandbox.upload(tmp_path, "src")
    assert len(await place.sandbox.download("src/f", 100)) == 100
    with pytest.raises(TransferRefusedError):
        await place.sandbox.download("src/f", 99)


async def test_upload_after_destroy_is_refused(place, tmp_path):
    """Nothing is copied into a sandbox that is gone."""
    await place.sandbox.destroy()
    with pytest.raises(SandboxBrokenError, match="destroyed"):
        await place.sandbox.upload(tmp_path, "src")


async def test_upload_of_a_fifo_is_refused(place, tmp_path):
    """A FIFO in the source is refused by name, without waiting for a writer."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TransferRefusedError, match="pipe"):
        await place.sandbox.upload(tmp_path, "src")


async def test_upload_of_a_socket_is_refused(place, tmp_path, monkeypatch):
    """A socket in the source is refused by name."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        with pytest.raises(TransferRefusedError, match="sock"):
            await place.sandbox.upload(tmp_path, "src")


async def test_upload_of_nothing_is_refused(place, tmp_path):
    """A source that is not there, or no folder, is refused."""
    (tmp_path / "file").touch()
    for source in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(TransferRefusedError):
            await place.sandbox.upload(source, "src")


async def test_upload_keeps_modes_links_and_owner(real, tmp_path):
    """Modes and links are copied; a link is never followed; what arrives is the job user's."""
    (tmp_path / "outside").write_bytes(CANARY)
    source = tmp_path / "source"
    source.mkdir()
    (source / "run").write_text("echo ran\n")
    (source / "run").chmod(0o4755)
    (source / "link").symlink_to(tmp_path / "outside")
    (source / "dangling").symlink_to("nowhere")
    (source / "folder").symlink_to(tmp_path)
    await real.sandbox.upload(source, "src")
    target = real.workspace / "job" / "src"
    assert stat.S_IMODE((target / "run").stat().st_mode) == 0o755
    assert (target / "link").readlink() == tmp_path / "outside"
    assert (target / "folder").is_symlink()
    assert (target / "dangling").is_symlink()
    assert {each.lstat().st_uid for each in target.iterdir()} == {real.job_uid}
    output, _ = await real.run("./run", "x")
    assert output == b"ran\n"


async def test_upload_over_a_link_of_the_job_replaces_it(real, tmp_path):
    """A job cannot redirect an upload by a link at a file's or a folder's place."""
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o777)
    (victim / "f").write_bytes(CANARY)
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d" / "f").write_text("new")
    (source / "g").write_text("new")
    await real.run(f"ln -s {victim}/f g; ln -s {victim} d")
    with pytest.raises(TransferRefusedError):
        await real.sandbox.upload(source, "src")
    with pytest.raises(TransferRefusedError):
        await real.sandbox.upload(source, "src/d")
    assert (victim / "f").read_bytes() == CANARY
    assert [each.name for each in victim.iterdir()] == ["f"]


def many_files(folder):
    """Fill a folder with more than is copied in a moment."""
    for number in range(4000):
        (folder / f"f{number}").write_bytes(b"x")
    return folder


def open_below(folder):
    """Return what this process has open in a folder."""
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    found = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [path for path in found if path.startswith(str(folder))]


async def test_cancelled_upload_has_ended(real, tmp_path):
    """After a cancellation nobody copies any more, so that destroy removes all of it."""
    source, target = many_files(tmp_path), real.workspace / "job" / "src"
    uploading = asyncio.create_task(real.sandbox.upload(source, "src"))
    await until(lambda: any(target.iterdir()))
    uploading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    assert open_below(source) == []
    assert open_below(real.workspace) == []
    assert len(list(target.iterdir())) < 4000
    await real.sandbox.destroy()
    assert not real.workspace.exists()


async def test_destroy_ends_an_upload(real, tmp_path):
    """Destroy does not race with a copy: it ends it, and who waits for the copy is told."""
    source, target = many_files(tmp_path), real.workspace / "job" / "src"
    uploading = asyncio.create_task(real.sandbox.upload(source, "src"))
    await until(lambda: any(target.iterdir()))
    await real.sandbox.destroy()
    assert not real.workspace.exists()
    with pytest.raises(SandboxBrokenError):
        await uploading
    with pytest.raises(SandboxBrokenError):
        await real.sandbox.upload(source, "src")
    assert not real.workspace.exists()


async def test_destroy_ends_a_start(real):
    """A command that is being started when destroy is called is refused or dead, and leaves nothing."""
    starting = asyncio.create_task(real.start("echo x >f; sleep 1000"))
    await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        await real.sandbox.destroy()
        with contextlib.suppress(SandboxBrokenError):
            assert (await (await starting).wait()).signal == signal.SIGKILL
    assert not real.workspace.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "middle", "fifo", "device", "directory"])
async def test_download_through_a_link_is_refused(real, tmp_path, kind):
    """A job cannot make us read what it cannot read: no link, FIFO, device or folder is opened."""
    tmp_path.chmod(0o755)
    (tmp_path / "secret").write_bytes(CANARY)
    scripts = {
        "file": (f"ln -s {tmp_path}/secret f", "src/f"),
        "folder": (f"ln -s {tmp_path} d", "src/d/secret"),
        "middle": (f"mkdir a; ln -s {tmp_path} a/b", "src/a/b/secret"),
        "fifo": ("mkfifo p", "src/p"),
        "device": ("ln -s /dev/zero z", "src/z"),
        "directory": ("mkdir x", "src/x"),
    }
    script, path = scripts[kind]
    await real.run(script)
    with pytest.raises(TransferRefusedError):
        await real.sandbox.download(path, 1 << 20)


async def test_workspace_that_resists_is_removed(real):
    """Mode 000, thousands of levels and links to the host do not survive destroy, nor does it follow."""
    script = (
        "mkdir -p locked/in; touch locked/in/f; chmod 000 locked/in locked;"
        " ln -s / root; i=0; while [ $i -lt 3000 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done;"
        " touch end; chmod 000 ../../d"
    )
    await real.run(script)
    workspace = real.workspace
    await real.sandbox.destroy()
    assert not workspace.exists()


async def test_only_the_shared_folder_is_left(real):
    """Nothing of a destroyed sandbox stays on the host; empty folders may wait for the next one."""
    await real.run("echo x >f")
    await real.sandbox.destroy()
    left = [each for each in real.root.iterdir() if each.name != ".shared"]
    assert all(each.name.startswith(SPARE_PREFIX) for each in left)
    assert [path for each in left for path in each.rglob("*") if not path.is_dir()] == []
    await real.provider.close()
    assert not real.root.exists()


@pytest.fixture
def stubborn(monkeypatch):
    """Make folders stay that have one of these names, as a mount point does."""
    names: set[str] = set()
    rmdir = os.rmdir

    def refuse(path, **options):
        if PurePath(path).name in names:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        rmdir(path, **options)

    monkeypatch.setattr(os, "rmdir", refuse)
    return names


async def test_failed_removal_loses_no_kill(place, stubborn):
    """A workspace that stays is an error that names it, after all is dead; close tries again."""
    name = place.sandbox.base_env["RUNNER_SANDBOX"]
    stubborn.add(name)
    if place.backend != SCRIPTED:
        (place.workspace / "home" / "kept").touch()  # an untouched workspace is removed another way
    env = {"SCRIPT_SLEEP_S": "1000", "SCRIPT_DESTROY_FAIL": f"{name} is busy"}
    command = await place.start("sleep 1000", env=env)
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(SandboxBrokenError, match=name):
            await place.sandbox.destroy()
        assert (await command.wait()).signal == signal.SIGKILL
    with pytest.raises(SandboxBrokenError):
        await place.start("true")
    with pytest.raises(SandboxBrokenError, match=name):
        await place.provider.create(SandboxRequest(name=name, min_tier=Tier.PLAIN))
    stubborn.clear()
    await place.provider.close()
    await place.provider.create(SandboxRequest(name=name, min_tier=Tier.PLAIN))


async def test_close_goes_on_after_a_failed_removal(real, stubborn, caplog):
    """One workspace that stays keeps no other, and is logged."""
    name = real.sandbox.base_env["RUNNER_SANDBOX"]
    other = real.root / (await real.another()).base_env["RUNNER_SANDBOX"]
    (real.workspace / "home" / "kept").touch()
    stubborn.add(name)
    await real.provider.close()
    assert not other.exists()
    stayed = [one.sandbox for one in caplog.records if one.action == "sandbox_not_removed"]
    assert stayed == [name]
    stubborn.clear()
    await real.provider.close()
    assert not real.root.exists()


async def test_reap_goes_on_after_a_failed_removal(real, stubborn, caplog):
    """A leftover that stays is logged, not named as removed, and keeps no other."""
    for name in ("left-1", "left-2", "left-3"):
        (real.root / name / "job").mkdir(parents=True)
    stubborn.add("left-2")
    assert await real.provider.reap() == ["left-1", "left-3"]
    assert [(record.action, record.sandbox) for record in caplog.records] == [
        ("leftover_not_removed", "left-2")
    ]
    stubborn.clear()
    assert await real.provider.reap() == ["left-2"]
