"""Taking files out of a sandbox whose content is hostile."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

import pytest

from sandbox.collection import Collecting, Read
from sandbox.errors import SandboxBrokenError, TransferRefusedError
from tests.contract.sandbox_backends import (
    ALL_BACKENDS,
    DEADLINE_S,
    FILESYSTEM_BACKENDS,
    PROCESS_BACKENDS,
    open_place,
)

CANARY = b"canary-61fe"


@dataclass
class Basket:
    """Takes everything below some folders."""

    wanted: tuple[str, ...] = ("",)
    files: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    limit: int = 1_000_000

    def enters(self, folder: str) -> bool:
        return any(f"{folder}/".startswith(f"{each}/") or not each for each in self.wanted)

    def wants(self, name: str) -> bool:
        return any(name.startswith(each) for each in self.wanted)

    def take(self, name: str, mode: int, size: int, read: Read) -> None:
        content = b""
        while len(content) < self.limit and (piece := read(100)):
            content += piece
        assert size >= len(content)
        self.files[name] = (mode, content)

    def link(self, name: str, target: str) -> None:
        self.links[name] = target

    def refuse(self, name: str, why: str) -> None:
        self.refused[name] = why

    def roots(self) -> list[str]:
        return list(self.wanted)


@pytest.fixture(params=ALL_BACKENDS)
async def place(request, reachable_dir):
    async for each in open_place(request, reachable_dir):
        yield each


@pytest.fixture(params=PROCESS_BACKENDS)
async def real(request, reachable_dir):
    async for each in open_place(request, reachable_dir):
        yield each


@pytest.fixture(params=FILESYSTEM_BACKENDS)
async def on_this_host(request, reachable_dir):
    async for each in open_place(request, reachable_dir):
        yield each


async def collected(sandbox, path: str = "src", *wanted: str) -> Basket:
    assert isinstance(sandbox, Collecting)
    basket = Basket(wanted or ("",))
    async with asyncio.timeout(DEADLINE_S):
        await sandbox.collect(path, basket)
    return basket


async def test_files_come_out(place, tmp_path):
    """With their names, below the folder that is asked for; what does not exist holds nothing."""
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "f\n1").write_bytes(b"\0\xff" * 300)
    (tmp_path / "empty").write_bytes(b"")
    await place.sandbox.upload(tmp_path, "src")

    basket = await collected(place.sandbox)

    assert {name: content for name, (_, content) in basket.files.items()} == {
        "a b/f\n1": b"\0\xff" * 300,
        "empty": b"",
    }
    assert (await collected(place.sandbox, "src/none")).files == {}


async def test_path_outside_is_refused(place):
    for path in ("../home", "/etc", "src/../../x"):
        with pytest.raises(TransferRefusedError):
            await collected(place.sandbox, path)


async def test_after_destroy(place):
    await place.sandbox.destroy()
    with pytest.raises(SandboxBrokenError):
        await collected(place.sandbox)


async def test_what_a_command_leaves(real, tmp_path):
    """Modes without setuid, hard links as files, names of any bytes; links, FIFOs and sockets are refused by name."""
    (tmp_path / "secret").write_bytes(CANARY)
    await real.run(
        f"""mkdir -p out/deep; cd out; echo one >deep/f; chmod 4755 deep/f; ln deep/f hard
        ln -s {tmp_path}/secret link; ln -s {tmp_path} linked; ln -s deep inner; mkfifo fifo
        echo two >"$(printf 'n\\nl')"; echo three >"$(printf 'x\\377')"; mkdir .hid; echo h >.hid/h"""
    )

    basket = await collected(real.sandbox, "src", "out")

    assert basket.files == {
        "out/deep/f": (0o755, b"one\n"),
        "out/hard": (0o755, b"one\n"),
        "out/n\nl": (0o644, b"two\n"),
        "out/x\udcff": (0o644, b"three\n"),
        "out/.hid/h": (0o644, b"h\n"),
    }
    assert basket.links == {
        "out/link": f"{tmp_path}/secret",
        "out/linked": str(tmp_path),
        "out/inner": "deep",
    }
    assert basket.refused == {"out/fifo": "is no regular file"}


async def test_a_folder_that_became_a_link(real, tmp_path):
    """Neither the folder of the source nor one on the way to what is wanted is followed out."""
    (tmp_path / "f").write_bytes(CANARY)
    await real.run(f"ln -s {tmp_path} out; ln -s {tmp_path} other")

    basket = await collected(real.sandbox, "src", "out")
    assert basket.files == {}
    assert basket.links == {"out": str(tmp_path)} or basket.refused == {"out": "is a link"}
    with pytest.raises(TransferRefusedError):
        await collected(real.sandbox, "src/other")


async def test_a_hole_is_not_read_beyond_the_limit(real):
    """A file claims what it likes; who takes it stops reading when there is enough."""
    await real.run("dd if=/dev/zero of=hole bs=1 count=1 seek=300000000; echo x >z")

    basket = await collected(real.sandbox)

    assert len(basket.files["hole"][1]) == basket.limit
    assert basket.files["z"] == (0o644, b"x\n")


async def test_a_file_of_somebody_else(on_this_host, tmp_path):
    """Root gives nothing out that only has a name in the workspace."""
    if os.geteuid() != 0:
        pytest.skip("only root's jobs are somebody else's")
    src = on_this_host.workspace / "job" / "src"
    secret = on_this_host.root / "secret"
    secret.write_bytes(CANARY)
    os.link(secret, src / "name")

    basket = await collected(on_this_host.sandbox)

    assert (basket.files, basket.refused) == ({}, {"name": "does not belong to the job"})


async def test_a_tree_that_is_swapped_meanwhile(on_this_host, tmp_path):
    """A survivor that exchanges a folder for a link all the time gets nothing from outside taken."""
    (tmp_path / "f").write_bytes(CANARY)
    command = await on_this_host.start(
        f"""mkdir d; echo ok >d/f; ln -s {tmp_path} l
        while :; do mv d x; mv l d; mv d l; mv x d; done"""
    )
    stop = asyncio.get_running_loop().time() + 1.0
    while asyncio.get_running_loop().time() < stop:
        basket = await collected(on_this_host.sandbox)
        assert all(content != CANARY for _, content in basket.files.values())
    await command.kill()


async def test_destroy_ends_a_collection(real):
    """It does not wait for a file without end."""
    await real.run("dd if=/dev/zero of=hole bs=1 count=1 seek=300000000")
    basket = Basket()
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def take(name: str, mode: int, size: int, read: Read) -> None:
        loop.call_soon_threadsafe(started.set)
        while True:
            read(1)

    basket.take = take  # type: ignore[method-assign]
    collecting = asyncio.create_task(real.sandbox.collect("src", basket))
    async with asyncio.timeout(DEADLINE_S):
        await started.wait()
        await real.sandbox.destroy()
        with pytest.raises((SandboxBrokenError, TransferRefusedError)):
            await collecting
