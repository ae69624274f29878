"""Job files that were read before: the job of a file of which every byte is the same, without the parsers.

These take more time than all the rest of a start (``benchmarks/README.md``). A job file may hold what is better not in a second place.
So what is kept is sealed by a key that the bytes of the job file give and that is kept nowhere: who
has not the file reads nothing. Only files without a problem are kept, so an error is always a fresh one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from agent_runner.job_spec import JobSpec
from daemon import VERSION
from daemon.errors import StateDirError
from daemon.jobs.spec_text import decode_spec, encode_spec
from daemon.paths import make_private_dir

MAX_JOBS = 64
MAX_TEXT_BYTES = 64 << 10
"""A longer job is read each time."""
_MAC_BYTES = 16
_DAEMON = Path(__file__).parent.parent
_READERS = (_DAEMON / "jobfile", _DAEMON.parent / "agent_runner")
"""The folders of the modules that decide what a file means."""


class JobMemory:
    """The jobs that were read from files, in a folder of the user's. One per file that is read."""

    def __init__(self, folder: Path, question: Iterable[bytes]) -> None:
        """Remember where; nothing is touched.

        Args:
            folder: Made when there is something to keep; its parent is there.
            question: All that decides which job it is.
        """
        self._folder = folder
        asked = hashlib.sha256()
        for part in (*_reader(), *question):
            asked.update(b"%d:" % len(part))
            asked.update(part)
        self._key = asked.digest()
        self._path = folder / hashlib.sha256(b"name" + self._key).hexdigest()

    def find(self) -> JobSpec | None:
        """Return the job, or None if it is not known. What is damaged, or may be of others, is not known."""
        try:
            if not _is_ours(self._folder.lstat()):
                return None
            with self._path.open("rb") as file:
                if not _is_ours(os.fstat(file.fileno())):
                    return None
                sealed = file.read(MAX_TEXT_BYTES + _MAC_BYTES + 1)
        except OSError:
            return None
        text = self._opened(sealed[_MAC_BYTES:])
        if sealed[:_MAC_BYTES] != self._mac(text):
            return None
        try:
            return decode_spec(text.decode())
        except (ValueError, TypeError, KeyError):
            return None

    def keep(self, spec: JobSpec) -> None:
        """Keep the job for the next time; if it cannot be kept, it is read again then.

        A moment that was counted from now is another one next time, so such a job is not kept.
        """
        text = encode_spec(spec).encode()
        if len(text) > MAX_TEXT_BYTES or spec.not_before_us is not None:
            return
        if decode_spec(text.decode()) != spec:
            return
        with contextlib.suppress(OSError, StateDirError):
            if self._folder.parent.stat().st_uid != os.geteuid():
                return  # root's look at the state of somebody else, which is refused only later
            make_private_dir(self._folder)
            self._make_room()
            part = self._folder / f"{self._path.name}.{os.getpid()}"
            part.touch(0o600, exist_ok=False)
            part.write_bytes(self._mac(text) + self._opened(text))
            part.replace(self._path)

    def _make_room(self) -> None:
        """Remove the oldest, and with them what a run that was killed left half written."""
        files = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in files[: max(0, len(files) - MAX_JOBS + 1)]:
            path.unlink(missing_ok=True)

    def _opened(self, text: bytes) -> bytes:
        """Return a text sealed, or what is sealed opened: one key seals one text, so it serves as a pad."""
        pad = hashlib.shake_256(b"seal" + self._key).digest(len(text))
        return (int.from_bytes(text) ^ int.from_bytes(pad)).to_bytes(len(text))

    def _mac(self, text: bytes) -> bytes:
        return hashlib.blake2b(text, key=self._key, digest_size=_MAC_BYTES).digest()


def _is_ours(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _reader() -> Iterable[bytes]:
    """Return what tells this reader from others: also a changed module of the same version may read a file differently."""
    yield f"{VERSION} {sys.version}".encode()
    for folder in _READERS:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.endswith(".py"):
                    status = entry.stat()
                    yield f"{entry.name} {status.st_size} {status.st_mtime_ns}".encode()
