"""The masked log and the end of one attempt on the agent-runner's disk, from the first byte until the server has it all.

The one buffer between a command and the server: writing never waits for the network, a reader takes bytes from any
offset, so a lost connection costs nothing and memory stays flat whatever the job prints. The file outlives this
process: what a killed agent-runner had not delivered is delivered at its next start, with the same lease.

The file's name carries the lease. Its content is the log; when the attempt has ended, a footer follows: the outcome
as JSON, its length, and a digest over it and the lease token. A job can write anything into its log but that digest.
An attempt that prints nothing has no file of its own: its end gets a place in that of ``ends``.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_runner.client import Lease
from agent_runner.ends import Ends
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

if TYPE_CHECKING:
    from hashlib import _Hash

MAX_AHEAD_BYTES = 16 << 20
"""How far a command may run ahead of a server that is there; then it is stopped by back-pressure."""
SUFFIX = ".spool"
OUTPUTS_SUFFIX = ".outputs"
_DIGEST_BYTES = 32
_LENGTH_BYTES = 8
_READ_BYTES = 1 << 20
_NO_FILE = -1
_EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""Of a log without a byte."""
_DEFAULTS = {each.name: each.default for each in fields(Outcome) if each.default is not MISSING}
_RECORDS = {
    kind: tuple(each.name for each in fields(kind))
    for kind in (SandboxRecord, SourceRecord, LogSummary, OutputsRecord)
}


class Spool:
    """One writer (the executor) and one reader (the delivery) on one event loop."""

    def __init__(self, path: str | None, fd: int = _NO_FILE, ends: Ends | None = None) -> None:
        self._path = path
        self._fd = fd
        self._has_file = fd != _NO_FILE
        self._ends = ends
        self._place: int | None = None
        """Of the end in ``ends``."""
        self._digest: _Hash | None = None
        """Of the log, once there is any."""
        self._changed = asyncio.Event()
        self._room: asyncio.Event | None = None
        """Set when there is room again; None while there is."""
        self._paced = True
        self.on_first_byte: Callable[[], None] | None = None
        """Called once, if anything is ever written."""
        self.length = 0
        """Of the log, without the footer."""
        self.acknowledged = 0
        self.closed = False
        """No byte will be added."""

    @classmethod
    def create(cls, folder: Path, lease: Lease, ends: Ends | None = None) -> Spool:
        """Make the spool of a new attempt.

        Args:
            folder: Where it is.
            lease: Of the attempt.
            ends: Takes the end if nothing is printed; there is no file until something is. None for an attempt that leaves
                more than a log, which lies beside its file.

        Raises:
            OSError: The disk has no room or cannot be written.
        """
        spool = cls(f"{folder}/{lease.job_id}-{lease.attempt}-{lease.token}{SUFFIX}", ends=ends)
        if ends is None:
            spool._make()
        elif not os.access(folder, os.W_OK):
            raise OSError(errno.EACCES, "the spool cannot be written", str(folder))
        return spool

    @classmethod
    def without_disk(cls) -> Spool:
        """Return a spool for an attempt that cannot have one: empty, and every write fails."""
        return cls(None)

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            OSError: The disk is full or broken; nothing of ``data`` counts.
        """
        self._append(data)
        self._count(data)
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
        document = _document(outcome)
        if self._ends is not None and not self._has_file:
            self._place = self._ends.put(json.dumps({"lease": lease, "end": document}).encode())
            if self._place is not None:
                return
        text = json.dumps(document).encode()
        self._append(text + len(text).to_bytes(_LENGTH_BYTES) + _seal(lease, text))

    def cut_back(self) -> None:
        """Give up what the server does not have yet; called when the disk is full, to make room for the end."""
        if self._fd == _NO_FILE:
            return
        os.ftruncate(self._fd, self.acknowledged)
        self.length = self.acknowledged
        self._count_all()

    async def drained(self) -> None:
        """Wait until the command may go on."""
        if self._room is not None:
            await self._room.wait()

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
        sha256 = _EMPTY_SHA256 if self._digest is None else self._digest.hexdigest()
        return LogSummary(length=self.length, sha256=sha256)

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
        if self._has_file:
            Path(self._path or "").unlink(missing_ok=True)
        if self._ends is not None and self._place is not None:
            self._ends.clear(self._place)
            self._place = None

    def remove_outputs(self) -> None:
        """Remove the contents of outputs; on a thread, after ``remove``. What a death leaves goes with the next start."""
        if self.outputs is not None:
            _remove_folder(self.outputs)

    def recover(self, lease: Lease) -> Outcome | None:
        """Take over what an earlier process left: measure the log and return its outcome, if it had one."""
        size = os.fstat(self._fd).st_size
        outcome, self.length = _read_footer(self._fd, size, lease)
        self._count_all()
        self.close_writing()
        return outcome

    def _append(self, data: bytes) -> None:
        if not self._has_file:
            self._make()
        view = memoryview(data)
        done = 0
        try:
            while done < len(view):
                done += os.pwrite(self._fd, view[done:], self.length + done)
        except OSError:
            os.ftruncate(self._fd, self.length)
            raise

    def _count(self, data: bytes) -> None:
        if self._digest is None:
            self._digest = _sha256()
        self._digest.update(data)

    def _count_all(self) -> None:
        self._digest = None
        for offset in range(0, self.length, _READ_BYTES):
            self._count(self.read(offset, _READ_BYTES))

    def _make(self) -> None:
        if self._path is None:
            raise OSError(errno.EROFS, "there is no spool")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o600)
        self._has_file = True

    def _pace(self) -> None:
        if self._paced and self.length - self.acknowledged > MAX_AHEAD_BYTES:
            self._room = self._room or asyncio.Event()
        elif self._room is not None:
            self._room.set()
            self._room = None


class _StoredEnd(Spool):
    """What an attempt that printed nothing has left to a later process."""

    def __init__(self, ends: Ends, place: int, outcome: Outcome) -> None:
        super().__init__(None, ends=ends)
        self._place = place
        self._outcome = outcome

    def recover(self, lease: Lease) -> Outcome | None:
        self.close_writing()
        return self._outcome

    def remove(self) -> None:
        super().remove()
        if self._ends is not None:
            self._ends.rest()


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
                yield Lease(job_id=job_id, attempt=int(number), token=token), Spool(str(path), fd)
            else:
                os.close(fd)
    for ends in Ends.leftovers(folder):
        for place, record in ends.stored().items():
            found = json.loads(record)
            yield Lease(*found["lease"]), _StoredEnd(ends, place, _outcome(found["end"]))


def _document(outcome: Outcome) -> dict[str, object]:
    """Return what ``dataclasses.asdict`` does, of what is not the default: little, for most."""
    document: dict[str, object] = {"end_reason": outcome.end_reason}
    for name, default in _DEFAULTS.items():
        value = getattr(outcome, name)
        if value is default:
            continue
        names = _RECORDS.get(type(value))
        document[name] = {each: getattr(value, each) for each in names} if names else value
    return document


def _seal(lease: Lease, text: bytes) -> bytes:
    digest = _sha256()
    digest.update(lease.token.encode() + b"\0" + text)
    return digest.digest()


def _sha256() -> _Hash:
    # Brings OpenSSL, half a megabyte, and an agent-runner that rests is to be small.
    import hashlib  # noqa: PLC0415

    return hashlib.sha256()


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
    return _outcome(json.loads(text)), size - tail - length


def _outcome(document: dict[str, Any]) -> Outcome:
    record = document.get("sandbox", {})
    return Outcome(
        **{
            **document,
            "end_reason": EndReason(document["end_reason"]),
            "sandbox": SandboxRecord(
                **{
                    **record,
                    "walls_not_held": tuple(record.get("walls_not_held", ())),
                    "limits": limits_from(record.get("limits", ())),
                }
            ),
            "source": SourceRecord(**document.get("source", {})),
            "triggers": triggers_from(document.get("triggers")),
            "outputs": outputs_from(document.get("outputs", {})),
            "log": LogSummary(**document.get("log", {})),
        }
    )
