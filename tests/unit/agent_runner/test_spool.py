"""The buffer between a command and the server."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import fields, replace
from pathlib import Path

from agent_runner.client import Lease
from agent_runner.outcome import (
    EndReason,
    LimitRecord,
    LogSummary,
    Outcome,
    OutputFile,
    OutputsRecord,
    SandboxRecord,
    SourceRecord,
    TriggerFile,
    Triggers,
)
from agent_runner.spool import MAX_AHEAD_BYTES, Spool, leftovers

LEASE = Lease(job_id="j1", attempt=2, token="t-o_k")
OUTCOME = Outcome(
    end_reason=EndReason.EXITED,
    exit_code=3,
    message="é",
    sandbox=SandboxRecord(
        kind="k",
        tier="t",
        walls_not_held=("a", "b"),
        limits=(LimitRecord("memory", 1.0, "rlimit"),),
    ),
)


def test_what_is_written_can_be_read_from_any_offset(tmp_path: Path) -> None:
    """Reads never go past the end, and the digest is that of everything."""
    spool = Spool.create(tmp_path, LEASE)
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
    spool = Spool.create(tmp_path, LEASE)
    spool.write(b"x" * (MAX_AHEAD_BYTES + 1))
    waiting = asyncio.create_task(spool.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    spool.acknowledge(2)
    await asyncio.wait_for(waiting, 5)
    spool.remove()


async def test_an_absent_server_stops_no_command(tmp_path: Path) -> None:
    """While nobody acknowledges because nobody is there, the spool takes what comes."""
    spool = Spool.create(tmp_path, LEASE)
    spool.write(b"x" * (MAX_AHEAD_BYTES + 1))
    spool.set_paced(False)
    await asyncio.wait_for(spool.drained(), 5)
    spool.remove()


async def test_a_reader_wakes_for_each_kind_of_change(tmp_path: Path) -> None:
    """A write, an acknowledgement and the end wake the reader once each."""
    spool = Spool.create(tmp_path, LEASE)
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


def recovered(folder: Path) -> tuple[Lease, Spool, Outcome | None]:
    ((lease, spool),) = leftovers(folder)
    return lease, spool, spool.recover(lease)


def test_a_later_process_finds_log_and_end(tmp_path: Path) -> None:
    """Lease, bytes, digest and outcome come back as they were."""
    spool = Spool.create(tmp_path, LEASE)
    spool.write(b"some log")
    outcome = replace(OUTCOME, log=spool.summary())
    spool.seal(LEASE, outcome)
    spool.release()
    lease, found, end = recovered(tmp_path)
    assert (lease, end) == (LEASE, outcome)
    assert found.read(0, 100) == b"some log"
    assert found.summary() == outcome.log
    found.remove()
    assert not list(tmp_path.iterdir())


def test_a_later_process_finds_a_log_without_an_end(tmp_path: Path) -> None:
    """The process died in the middle: everything is log."""
    spool = Spool.create(tmp_path, LEASE)
    spool.write(b"x" * 100)
    spool.release()
    _, found, end = recovered(tmp_path)
    assert end is None
    assert found.length == 100
    found.remove()


def test_a_job_cannot_fake_its_end(tmp_path: Path) -> None:
    """A footer that was written into the log without the token is log."""
    forged = Spool.create(tmp_path, Lease(job_id="x", attempt=1, token="guess"))
    forged.seal(Lease(job_id="x", attempt=1, token="guess"), OUTCOME)
    size = (tmp_path / "x-1-guess.spool").stat().st_size
    footer = (tmp_path / "x-1-guess.spool").read_bytes()
    forged.remove()
    spool = Spool.create(tmp_path, LEASE)
    spool.write(footer)
    spool.release()
    _, found, end = recovered(tmp_path)
    assert end is None
    assert found.length == size
    found.remove()


def test_foreign_files_are_no_spools(tmp_path: Path) -> None:
    """Names that are not ours are left alone."""
    (tmp_path / "note.txt").write_text("x")
    (tmp_path / "a.spool").write_text("x")
    assert list(leftovers(tmp_path)) == []


def test_a_full_disk_costs_only_what_the_server_does_not_have(tmp_path: Path) -> None:
    """Cut back, the spool is the acknowledged part, with its digest, and can still take the end."""
    spool = Spool.create(tmp_path, LEASE)
    spool.write(b"acknowledged|not yet")
    spool.acknowledge(12)
    spool.cut_back()
    assert spool.summary().length == 12
    assert spool.summary().sha256 == hashlib.sha256(b"acknowledged").hexdigest()
    spool.seal(LEASE, OUTCOME)
    spool.release()
    _, found, end = recovered(tmp_path)
    assert (found.length, end) == (12, OUTCOME)
    found.remove()


def test_the_stored_end_is_the_whole_record(tmp_path: Path) -> None:
    """Every field of the outcome and of its records comes back, so that a new one cannot be forgotten."""
    outcome = replace(
        OUTCOME,
        source=SourceRecord(commit="c0", ci_commit="c1"),
        log=LogSummary(length=0, sha256="5e", truncated="disk_full"),
        outputs=OutputsRecord(files=(OutputFile("a", "5f", 1, 0o644),), error="b: is a link"),
        interrupted=True,
        returned=True,
        triggers=Triggers("{}", (TriggerFile("a.yaml", "x"),)),
        workflow_output="{}",
    )
    for record in (outcome, outcome.source, outcome.sandbox, outcome.outputs):
        for each in fields(record):
            assert getattr(record, each.name) != each.default, each.name
    assert stored_and_read(tmp_path, outcome) == outcome


def test_the_stored_end_may_be_all_default(tmp_path: Path) -> None:
    """What is the default is not written, and comes back."""
    outcome = Outcome(end_reason=EndReason.SANDBOX_FAILED)
    assert stored_and_read(tmp_path, outcome) == outcome


def stored_and_read(folder: Path, outcome: Outcome) -> Outcome | None:
    spool = Spool.create(folder, LEASE)
    spool.seal(LEASE, outcome)
    spool.release()
    _, found, end = recovered(folder)
    found.remove()
    return end
