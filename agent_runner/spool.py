"""The masked log and the end of one attempt on the agent-runner's disk, from the first byte until the server has it all.

The one buffer between a command and the server: writing never waits for the network, a reader takes bytes from any
offset, so a lost connection costs nothing and memory stays flat whatever the job prints. The file outlives this
process: what a killed agent-runner had not delivered is delivered at its next start, with the same lease.

The file's name carries the lease. Its content is the log; when the attempt has ended, a footer follows: the outcome
as JSON, its length, and a digest over it and the lease token. A job can write anything into its log but that digest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

from agent_runner.client import Lease
from agent_runner.outcome import (
    EndReason,
    LogSummary,
    Outcome,
    OutputsRecord,
    SandboxRecord,
    SourceRecord,
    limits_from,
    outputs_from,
    triggers_from,
)

MAX_AHEAD_BYTES = 16 << 20
"""How far a command may run ahead of a server that is there; then it is stopped by back-pressure."""
SUFFIX = ".spool"
OUTPUTS_SUFFIX = ".outputs"
_DIGEST_BYTES = 32
_LENGTH_BYTES = 8
_READ_BYTES = 1 << 20
_NO_FILE = -1
_FIELDS = {
    kind: tuple(each.name for each in fields(kind))
    for kind in (Outcome, SandboxRecord, SourceRecord, LogSummary, OutputsRecord)
}


class Spool:
    """One writer (the executor) and one reader (the delivery) on one event loop."""

    def __init__(self, fd: int, path: str | None) -> None:
        self._fd = fd
        self._path = path
        self._digest = hashlib.sha256()
        self._changed = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._paced = True
        self.on_first_byte: Callable[[], None] | None = None
        """Called once, if anything is ever written."""
        self.length = 0
        """Of the log, without the footer."""
        self.acknowledged = 0
        self.closed = False
        """No byte will be added."""

    @classmethod
    def create(cls, folder: Path, lease: Lease) -> Spool:
        """Make the spool of a new attempt.

        Raises:
            OSError: The disk has no room or cannot be written.
        """
        path = f"{folder}/{lease.job_id}-{lease.attempt}-{lease.token}{SUFFIX}"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        return cls(os.open(path, flags, 0o600), path)

    @classmethod
    def without_disk(cls) -> Spool:
        """Return a spool for an attempt that cannot have one: empty, and every write fails."""
        return cls(_NO_FILE, None)

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            OSError: The disk is full or broken; nothing of ``data`` counts.
        """
        try:
            self._write_at(self.length, data)
        except OSError:
            os.ftruncate(self._fd, self.length)
            raise
        self._digest.update(data)
        self.length += len(data)
        self._changed.set()
        self._pace()
        if self.on_first_byte is not None:
            call, self.on_first_byte = self.on_first_byte, None
            call()

    def seal(self, lease: Lease, outcome: Outcome) -> None:
        """Store the end behind the log, so that a later process can report it.

        Raises:
            OSError: The disk is full or broken.
        """
        text = json.dumps(_document(outcome)).encode()
        footer = text + len(text).to_bytes(_LENGTH_BYTES) + _seal(lease, text)
        try:
            self._write_at(self.length, footer)
        except OSError:
            os.ftruncate(self._fd, self.length)
            raise

    def cut_back(self) -> None:
        """Give up what the server does not have yet; called when the disk is full, to make room for the end."""
        if self._fd == _NO_FILE:
            return
        os.ftruncate(self._fd, self.acknowledged)
        self.length = self.acknowledged
        self._digest = hashlib.sha256()
        for offset in range(0, self.length, _READ_BYTES):
            self._digest.update(self.read(offset, _READ_BYTES))

    async def drained(self) -> None:
        """Wait until the command may go on."""
        await self._drained.wait()

    def read(self, offset: int, limit: int) -> bytes:
        """Return bytes of the log from an offset; empty at the end."""
        limit = min(limit, self.length - offset)
        return os.pread(self._fd, limit, offset) if limit > 0 else b""

    def acknowledge(self, offset: int) -> None:
        """Note that the server has everything before an offset."""
        self.acknowledged = offset
        self._changed.set()
        self._pace()

    def set_paced(self, paced: bool) -> None:
        """Say whether the server is there; while it is away the spool takes what comes."""
        self._paced = paced
        self._pace()

    def close_writing(self) -> None:
        """Say that no byte will be added; wakes the reader."""
        self.closed = True
        self._changed.set()

    def wake(self) -> None:
        """Wake the reader, whose connection has changed."""
        self._changed.set()

    async def changed(self) -> None:
        """Wait for a write, an acknowledgement or the end."""
        await self._changed.wait()
        self._changed.clear()

    def summary(self) -> LogSummary:
        """Return length and digest of the log."""
        return LogSummary(length=self.length, sha256=self._digest.hexdigest())

    @property
    def outputs(self) -> Path | None:
        """Return the folder beside it for the contents of outputs; None without a disk. It need not exist."""
        return None if self._path is None else Path(self._path).with_suffix(OUTPUTS_SUFFIX)

    def release(self) -> None:
        """Let go of the file and leave it for the next start. Idempotent."""
        if self._fd != _NO_FILE:
            os.close(self._fd)
            self._fd = _NO_FILE

    def remove(self) -> None:
        """Let go of the file and delete it: the server has everything, or wants nothing. Idempotent."""
        self.release()
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108 - the path is a text, for every attempt

    def remove_outputs(self) -> None:
        """Remove the contents of outputs; on a thread, after ``remove``. What a death leaves goes with the next start."""
        if self.outputs is not None:
            _remove_folder(self.outputs)

    def recover(self, lease: Lease) -> Outcome | None:
        """Take over what an earlier process left: measure the log and return its outcome, if it had one."""
        size = os.fstat(self._fd).st_size
        outcome, self.length = _read_footer(self._fd, size, lease)
        for offset in range(0, self.length, _READ_BYTES):
            self._digest.update(self.read(offset, _READ_BYTES))
        self.close_writing()
        return outcome

    def _write_at(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += os.pwrite(self._fd, view[done:], offset + done)

    def _pace(self) -> None:
        if self._paced and self.length - self.acknowledged > MAX_AHEAD_BYTES:
            self._drained.clear()
        else:
            self._drained.set()


def remove_orphans(folder: Path) -> None:
    """Remove the contents of outputs that have no spool; called once, at start, after ``leftovers``."""
    for path in folder.glob(f"*{OUTPUTS_SUFFIX}"):
        if not path.with_suffix(SUFFIX).exists():
            _remove_folder(path)


def _remove_folder(path: Path) -> None:
    # Loads the libraries of four archive formats, for the few jobs that have outputs.
    import shutil  # noqa: PLC0415

    shutil.rmtree(path, ignore_errors=True)


def leftovers(folder: Path) -> Iterator[tuple[Lease, Spool]]:
    """Yield the spools that an earlier process left, opened but not read; called once, at start."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        job_id, _, rest = path.name.removesuffix(SUFFIX).partition("-")
        number, _, token = rest.partition("-")
        if number.isdecimal() and token:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            if stat.S_ISREG(os.fstat(fd).st_mode):
                yield Lease(job_id=job_id, attempt=int(number), token=token), Spool(fd, str(path))
            else:
                os.close(fd)


def _document(outcome: Outcome) -> dict[str, object]:
    """Return what ``dataclasses.asdict`` does, without its copies of copies."""
    document: dict[str, object] = {name: getattr(outcome, name) for name in _FIELDS[Outcome]}
    for name in ("sandbox", "source", "log", "outputs"):
        record = getattr(outcome, name)
        document[name] = {each: getattr(record, each) for each in _FIELDS[type(record)]}
    return document


def _seal(lease: Lease, text: bytes) -> bytes:
    return hashlib.sha256(lease.token.encode() + b"\0" + text).digest()


def _read_footer(fd: int, size: int, lease: Lease) -> tuple[Outcome | None, int]:
    """Return the outcome and the length of the log; without a valid footer everything is log."""
    tail = _LENGTH_BYTES + _DIGEST_BYTES
    if size < tail:
        return None, size
    end = os.pread(fd, tail, size - tail)
    length = int.from_bytes(end[:_LENGTH_BYTES])
    if length > size - tail:
        return None, size
    text = os.pread(fd, length, size - tail - length)
    if _seal(lease, text) != end[_LENGTH_BYTES:]:
        return None, size
    document = json.loads(text)
    record = document["sandbox"]
    outcome = Outcome(
        **{
            **document,
            "end_reason": EndReason(document["end_reason"]),
            "sandbox": SandboxRecord(
                **{
                    **record,
                    "walls_not_held": tuple(record["walls_not_held"]),
                    "limits": limits_from(record.get("limits", ())),
                }
            ),
            "source": SourceRecord(**document.get("source", {})),
            "triggers": triggers_from(document.get("triggers")),
            "outputs": outputs_from(document.get("outputs", {})),
            "log": LogSummary(**document["log"]),
        }
    )
    return replace(outcome), size - tail - length
