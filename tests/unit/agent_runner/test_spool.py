"""The buffer between a command and the server."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from agent_runner.spool import MAX_AHEAD_BYTES, Spool


def test_what_is_written_can_be_read_from_any_offset(tmp_path: Path) -> None:
    """Reads never go past the end, and the digest is that of everything."""
    spool = Spool(tmp_path / "log")
    spool.write(b"hello ")
    spool.write(b"world")
    assert spool.read(0, 100) == b"hello world"
    assert spool.read(6, 3) == b"wor"
    assert spool.read(11, 5) == b""
    assert spool.summary().length == 11
    assert spool.summary().sha256 == hashlib.sha256(b"hello world").hexdigest()
    spool.remove()
    spool.remove()
    assert list(tmp_path.iterdir()) == []


async def test_a_command_cannot_run_far_ahead_of_a_server_that_is_there(tmp_path: Path) -> None:
    """Beyond the bound the writer waits until the server has caught up."""
    spool = Spool(tmp_path / "log")
    spool.write(b"x" * (MAX_AHEAD_BYTES + 1))
    waiting = asyncio.create_task(spool.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    spool.acknowledge(2)
    await asyncio.wait_for(waiting, 5)
    spool.remove()


async def test_an_absent_server_stops_no_command(tmp_path: Path) -> None:
    """While nobody acknowledges because nobody is there, the spool takes what comes."""
    spool = Spool(tmp_path / "log")
    spool.write(b"x" * (MAX_AHEAD_BYTES + 1))
    spool.set_paced(False)
    await asyncio.wait_for(spool.drained(), 5)
    spool.remove()


async def test_a_reader_wakes_for_each_kind_of_change(tmp_path: Path) -> None:
    """A write, an acknowledgement and the end wake the reader once each."""
    spool = Spool(tmp_path / "log")
    for change in (
        lambda: spool.write(b"x"),
        lambda: spool.acknowledge(1),
        spool.close_writing,
        spool.wake,
    ):
        waiting = asyncio.create_task(spool.changed())
        await asyncio.sleep(0)
        assert not waiting.done()
        change()
        await asyncio.wait_for(waiting, 5)
    spool.remove()
