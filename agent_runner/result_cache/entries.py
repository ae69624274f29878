"""The folder of results, by the digest of what they depend on. Each is whole or not there.

A result is a folder of its own: what it is and the contents of its outputs, each named by its SHA-256. Several processes
use the cache at once; who takes a result while another removes it has none.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from agent_runner.outcome import OutputFile
from agent_runner.outputs.staging import StagedOutputs, TooLargeError
from agent_runner.result_cache.fingerprint import Parts

MAX_ENTRIES = 500
"""In one scope."""
MAX_BYTES = 10 << 30
"""Of the contents in one scope."""
UNFINISHED_S = 3600.0
"""What was being written this long ago is nobody's."""
_MANIFEST = "manifest.json"
_NEW = "new-"
_PRIVATE = 0o700


class Entry(NamedTuple):
    """One result."""

    job_id: str
    """Whose it was."""
    stored_us: int
    parts: Parts
    files: tuple[OutputFile, ...]


class ResultCache:
    """The results of one scope, such as a project: nothing is shared between two. Every method blocks for the disk."""

    def __init__(self, root: Path, scope: str) -> None:
        self._folder = root / hashlib.sha256(scope.encode()).hexdigest()[:32]

    def get(self, key: str) -> Entry | None:
        """Return a result, and count that as a use of it."""
        entry = self._read(self._folder / "results" / key)
        if entry is not None:
            with contextlib.suppress(OSError):
                os.utime(self._folder / "results" / key)
        return entry

    def latest(self, identity: str) -> Entry | None:
        """Return the newest result of a job with this identity, whatever it depends on."""
        try:
            key = self._pointer(identity).read_text()
        except (OSError, ValueError):
            return None
        return self._read(self._folder / "results" / key) if key.isalnum() else None

    def restore(self, key: str, entry: Entry, staged: StagedOutputs) -> None:
        """Stage the contents of a result.

        Raises:
            OSError: One is gone or damaged; the result is removed.
            StagingFailedError: The disk is full or broken.
        """
        folder = self._folder / "results" / key
        try:
            for file in entry.files:
                _stage(folder / file.sha256, file, staged)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def put(self, key: str, identity: str, entry: Entry, staged: StagedOutputs) -> None:
        """Store a result, or find an equal one there.

        Raises:
            OSError: The disk is full or broken; nothing is stored.
        """
        results = self._folder / "results"
        results.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        new = results / f"{_NEW}{secrets.token_hex(8)}"
        new.mkdir(mode=_PRIVATE)
        try:
            for sha256 in {file.sha256 for file in entry.files}:
                shutil.copyfile(staged.path(sha256), new / sha256)
            (new / _MANIFEST).write_text(json.dumps(entry._asdict()))
            with contextlib.suppress(OSError):  # somebody was quicker
                new.rename(results / key)
            self._point(identity, key)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        with contextlib.suppress(OSError):  # others remove the same
            self._evict()

    def _read(self, folder: Path) -> Entry | None:
        try:
            document = json.loads((folder / _MANIFEST).read_text())
            files = tuple(OutputFile(*file) for file in document.pop("files"))
            return Entry(**document, files=files)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _pointer(self, identity: str) -> Path:
        return self._folder / "latest" / hashlib.sha256(identity.encode()).hexdigest()

    def _point(self, identity: str, key: str) -> None:
        pointer = self._pointer(identity)
        pointer.parent.mkdir(mode=_PRIVATE, exist_ok=True)
        new = pointer.with_name(f"{_NEW}{secrets.token_hex(8)}")
        new.write_text(key)
        new.rename(pointer)

    def _evict(self) -> None:
        """Remove the results that were not used for the longest time, as far as there are too many."""
        now_s = time.time()  # noqa: TID251 - compared with times of files
        found = []
        for folder in (self._folder / "results").iterdir():
            with contextlib.suppress(OSError):
                used_s = folder.stat().st_mtime
                if not folder.name.startswith(_NEW):
                    found.append((used_s, folder))
                elif now_s - used_s > UNFINISHED_S:
                    shutil.rmtree(folder, ignore_errors=True)
        size = 0
        for count, (_, folder) in enumerate(sorted(found, reverse=True), 1):
            size += sum(path.stat().st_size for path in folder.iterdir())
            if count > MAX_ENTRIES or size > MAX_BYTES:
                shutil.rmtree(folder, ignore_errors=True)
        pointers = sorted(
            (self._folder / "latest").iterdir(), key=lambda path: path.stat().st_mtime
        )
        for pointer in pointers[:-MAX_ENTRIES]:
            pointer.unlink(missing_ok=True)


def _stage(path: Path, file: OutputFile, staged: StagedOutputs) -> None:
    try:
        with path.open("rb") as content:
            if staged.put(content.read, file.size).sha256 == file.sha256:
                return
    except TooLargeError:
        pass
    raise OSError(errno.EIO, f"the content of {file.name!r} is damaged")
