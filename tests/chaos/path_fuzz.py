"""Workspaces that a job could leave and paths that could be asked for, made up; and what must hold when files cross the walls."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from sandbox.collection import Read
from sandbox.errors import TransferRefusedError
from sandbox.filesystem.checkouts import find_checkouts, planted
from sandbox.filesystem.collecting import TreeCollection
from sandbox.filesystem.removal import remove_tree
from sandbox.filesystem.transfer import TreeCopy, open_folder, read_file

SECRET = b"of the host"
_PAUSE_S = 0.001
"""How long a folder is what it was before it is swapped again."""
LIMIT_BYTES = 64
_NAMES = st.sampled_from(
    [*["a", "b", "c", ".git"] * 4, "config", "hooks", "a\nb", "\udcff", "-rf", " ", "é", "x" * 255]
)
_ODD = st.sampled_from(["..", ".", "", "/", "a\0", "\ud800", "x" * 256, "outside", "secret"])
_PATHS = st.lists(st.one_of(_NAMES, _NAMES, _NAMES, _ODD), max_size=5).map("/".join)
_KINDS = st.sampled_from(
    [*["file", "folder", "link"] * 4, "fifo", "socket", "hard link", "sparse", "closed", "gitdir"]
)
_TARGETS = st.one_of(
    st.sampled_from(["../outside", "../outside/secret", "..", ".", "/", "OUTSIDE", "OUTSIDE/secret", "loop", "../../outside/secret"]),
    _PATHS,
)  # fmt: skip


class Entry(NamedTuple):
    """One thing that a job makes."""

    kind: str
    path: str
    target: str


ENTRIES = st.lists(st.builds(Entry, _KINDS, _PATHS, _TARGETS), max_size=12)


class Ground:
    """A host with a folder ``job`` that is hostile, a folder ``given`` that is to be copied, and what nobody may touch. A context."""

    def __enter__(self) -> Self:
        self.top = Path(tempfile.mkdtemp(prefix="runner-paths-"))
        self.job, self.given, self.outside = (
            self.top / name for name in ("job", "given", "outside")
        )
        for folder in (self.job, self.given, self.outside):
            folder.mkdir()
        (self.outside / "secret").write_bytes(SECRET)
        self.before = self._facts()
        return self

    def __exit__(self, *_: object) -> None:
        parent = os.open(self.top.parent, os.O_RDONLY)
        try:
            remove_tree(parent, self.top.name)
        finally:
            os.close(parent)

    def make(self, top: Path, entries: Sequence[Entry]) -> None:
        """Make as much of some entries as a file system takes."""
        for entry in entries:
            with contextlib.suppress(OSError, ValueError):
                self._make(top, entry)

    def check_untouched(self) -> None:
        """Check that the outside is as it was."""
        assert self._facts() == self.before

    def _make(self, top: Path, entry: Entry) -> None:
        path = os.path.join(top, entry.path)
        if os.path.commonpath([os.path.realpath(os.path.dirname(path)), str(top)]) != str(top):
            return  # a job is behind walls
        os.makedirs(os.path.dirname(path), exist_ok=True)
        target = entry.target.replace("OUTSIDE", str(self.outside))
        match entry.kind:
            case "folder":
                os.mkdir(path)
            case "link":
                os.symlink(target, path)
            case "fifo":
                os.mkfifo(path)
            case "socket":
                with socket.socket(socket.AF_UNIX) as made:
                    made.bind(path)
            case "hard link":
                os.link(os.path.join(top, "a"), path, follow_symlinks=False)
            case "closed":
                os.mkdir(path, 0)
            case "sparse":
                with open(path, "xb") as file:
                    file.truncate(1 << 35)
            case "gitdir":
                with open(path, "x") as text:
                    text.write(f"gitdir: {target}\n[include]\npath = {target}\n")
            case _:
                with open(path, "xb") as file:
                    file.write(b"own")

    def _facts(self) -> list[tuple[str, bytes, int, int]]:
        found = []
        for path in sorted(self.outside.rglob("*")):
            seen = path.lstat()
            found.append((str(path), path.read_bytes(), seen.st_mode, seen.st_mtime_ns))
        return found


class _Everything:
    """A taker that wants all there is."""

    def __init__(self) -> None:
        self.taken: dict[str, bytes] = {}

    def enters(self, _folder: str) -> bool:
        return True

    def wants(self, _name: str) -> bool:
        return True

    def take(self, name: str, _mode: int, _size: int, read: Read) -> None:
        assert name not in self.taken
        self.taken[name] = read(LIMIT_BYTES)

    def link(self, _name: str, _target: str) -> None:
        return

    def refuse(self, _name: str, _why: str) -> None:
        return

    def roots(self) -> list[str]:
        return [""]


def check_reading(ground: Ground, path: str) -> bool:
    """Check that a path gives a plain file of the job, all of it, or nothing; tell whether it gave one."""
    plain = _plain_file(ground.job, path)
    try:
        content = read_file(ground.job, path, LIMIT_BYTES)
    except (TransferRefusedError, FileNotFoundError):
        assert plain is None or plain.stat().st_size > LIMIT_BYTES
        return False
    assert plain is not None, path
    assert content == plain.read_bytes()
    return True


def check_collecting(ground: Ground, path: str) -> None:
    """Check that nothing but files of the job is collected."""
    taker = _Everything()
    collection = TreeCollection(taker=taker, owner=None, stop=threading.Event())
    try:
        collection.run(ground.job, path)
    except TransferRefusedError:
        return
    assert SECRET not in taker.taken.values()


def check_copying(ground: Ground, target: str) -> None:
    """Check that a copy is whole, or refused; and that it is nowhere but below the job's root."""
    copy = TreeCopy(owner=None, skip=(0, 0))
    try:
        fd = open_folder(ground.job, target, create=True)
    except (TransferRefusedError, OSError):
        return
    try:
        copy.run(ground.given, fd)
        arrived = Path(os.readlink(f"/proc/self/fd/{fd}"))
    except TransferRefusedError:
        return
    finally:
        os.close(fd)
    assert arrived.is_relative_to(ground.job)
    for path in ground.given.rglob("*"):
        made, seen = arrived / path.relative_to(ground.given), path.lstat()
        assert stat.S_IFMT(made.lstat().st_mode) == stat.S_IFMT(seen.st_mode)
        if stat.S_ISLNK(seen.st_mode):
            assert made.readlink() == path.readlink()
        elif stat.S_ISREG(seen.st_mode):
            assert made.lstat().st_size == seen.st_size


def _plain_file(top: Path, path: str) -> Path | None:
    """Return the regular file that a path leads to without a link or a step back; None if it does not."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or not parts:
        return None
    here = top
    try:
        for part in parts:
            if not stat.S_ISDIR(here.lstat().st_mode):
                return None
            here = here / part
        return here if stat.S_ISREG(here.lstat().st_mode) else None
    except (OSError, ValueError):
        return None


def check(entries: Sequence[Entry], given: Sequence[Entry], paths: Sequence[str]) -> int:
    """Check one workspace; return how many of the paths gave a file."""
    with Ground() as ground:
        ground.make(ground.job, entries)
        ground.make(ground.given, [entry for entry in given if entry.kind != "sparse"])
        asked = [*paths, *(entry.path for entry in entries)]
        read = sum(check_reading(ground, path) for path in asked)
        before = find_checkouts(ground.job)
        assert planted(ground.job, before) == ()
        assert not any(path.startswith(("/", "..")) for path in before.read_only())
        for path in paths:
            check_collecting(ground, path)
            check_copying(ground, path)
        ground.check_untouched()
        parent = os.open(ground.top, os.O_RDONLY)
        try:
            remove_tree(parent, "job")
        finally:
            os.close(parent)
        assert not os.path.lexists(ground.job)
        ground.check_untouched()
    return read


def race(swaps: int) -> int:
    """Read, copy and collect by a path whose folder a job swaps for a link meanwhile; return how many reads gave its own file."""
    own = 0
    with Ground() as ground:
        ground.make(ground.job, [Entry("file", "a/secret", ""), Entry("link", "l", "../outside")])
        ground.make(ground.given, [Entry("file", "new", ""), Entry("file", "d/new", "")])
        stop = threading.Event()
        swapping = threading.Thread(target=_swap, args=(ground.job, stop))
        swapping.start()
        try:
            for _ in range(swaps):
                with contextlib.suppress(TransferRefusedError, FileNotFoundError):
                    content = read_file(ground.job, "a/secret", LIMIT_BYTES)
                    assert content == b"own"
                    own += 1
                check_collecting(ground, "")
                with contextlib.suppress(TransferRefusedError, OSError):
                    fd = open_folder(ground.job, "a", create=True)
                    try:
                        TreeCopy(owner=None, skip=(0, 0)).run(ground.given, fd)
                    finally:
                        os.close(fd)
                find_checkouts(ground.job)
        finally:
            stop.set()
            swapping.join()
        ground.check_untouched()
    return own


def _swap(job: Path, stop: threading.Event) -> None:
    while not stop.is_set():
        with contextlib.suppress(OSError):
            os.rename(job / "a", job / "b")
            os.rename(job / "l", job / "a")
            os.rename(job / "a", job / "l")
        with contextlib.suppress(OSError):
            shutil.rmtree(job / "a")  # of a copy that found nothing there
        with contextlib.suppress(OSError):
            os.rename(job / "b", job / "a")
            time.sleep(_PAUSE_S)


def fuzz(examples: int, first: int) -> int:
    """Check made-up workspaces; return how many paths gave a file."""
    read = 0

    @seed(first)
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(ENTRIES, ENTRIES, st.lists(_PATHS, min_size=1, max_size=3))
    def run(entries: list[Entry], given: list[Entry], paths: list[str]) -> None:
        nonlocal read
        read += check(entries, given, paths)

    run()
    return read
