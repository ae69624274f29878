"""Contents by digest: whole or not there, shared, and removed when nothing needs them."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import time
from contextlib import contextmanager

import pytest

from daemon.artifacts.blob_store import GRACE_S, BlobStore
from daemon.errors import ArtifactNotWrittenError, StoreUnusableError, UsageError

CONTENT = b"content" * 1000
P = "a-project"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def blobs(tmp_path):
    blobs = BlobStore(tmp_path / "artifacts")
    blobs.open()
    return blobs


def put(blobs: BlobStore, content: bytes = CONTENT) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    blob = blobs.begin(P, sha256, len(content))
    half = len(content) // 2
    assert not half or not blob.write(content[:half])
    assert blob.write(content[half:])
    blob.keep()
    blob.close()
    return sha256


def files(tmp_path) -> list[str]:
    return sorted(path.name for path in tmp_path.rglob("*") if path.is_file())


@contextmanager
def disk_of(size: int):
    """Let no file of this process grow beyond ``size``, as a full disk does."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_content_is_there_when_it_is_whole(blobs, tmp_path):
    """Private, and readable from anywhere."""
    assert blobs.missing(P, [SHA256]) == [SHA256]
    blob = blobs.begin(P, SHA256, len(CONTENT))
    blob.write(CONTENT[:-1])
    assert blobs.missing(P, [SHA256]) == [SHA256]
    assert blob.write(CONTENT[-1:])
    blob.keep()
    blob.close()

    assert blobs.missing(P, [SHA256]) == []
    assert blobs.read(P, SHA256, 7, 7) == b"content"
    assert blobs.read(P, SHA256, len(CONTENT), 7) == b""
    modes = {oct(path.stat().st_mode & 0o077) for path in (tmp_path / "artifacts").rglob("*")}
    assert modes == {"0o0"}


def test_nobody_else_can_look_in(blobs, tmp_path):
    """Whatever the umask."""
    before = os.umask(0)
    try:
        put(blobs)
    finally:
        os.umask(before)
    root = tmp_path / "artifacts"
    assert {each.stat().st_mode & 0o077 for each in (root, *root.rglob("*"))} == {0}


def test_projects_share_nothing(blobs):
    """Whoever knows a digest does not have the content of another project."""
    put(blobs)

    assert blobs.missing("another", [SHA256]) == [SHA256]
    with pytest.raises(StoreUnusableError):
        blobs.read("another", SHA256, 0, 1)


def test_an_empty_content(blobs):
    assert blobs.missing(P, [put(blobs, b"")]) == []


def test_contents_that_are_not_what_they_say(blobs, tmp_path):
    for size, content in ((len(CONTENT), b"x" * len(CONTENT)), (3, CONTENT)):
        blob = blobs.begin(P, SHA256, size)
        with pytest.raises(UsageError):
            blob.write(content)
        blob.close()
    assert blobs.missing(P, [SHA256]) == [SHA256]
    assert files(tmp_path) == []


@pytest.mark.parametrize("digest", ["", "a" * 63, "../" * 22, "A" * 64, "a" * 63 + "\n"])
def test_digests_that_are_none(blobs, digest):
    """They would name other files."""
    for use in (lambda: blobs.missing(P, [digest]), lambda: blobs.begin(P, digest, 1)):
        with pytest.raises(UsageError):
            use()
    with pytest.raises(UsageError):
        blobs.read(P, digest, 0, 1)


def test_a_full_disk_is_one_clear_reason(blobs, tmp_path):
    """Nothing is left of what did not fit."""
    blob = blobs.begin(P, SHA256, len(CONTENT))
    with disk_of(100), pytest.raises(ArtifactNotWrittenError, match="make room below"):
        blob.write(CONTENT)
    blob.close()

    assert files(tmp_path) == []


def test_what_was_not_wholly_there_goes_with_the_next_start(blobs, tmp_path):
    blobs.begin(P, SHA256, len(CONTENT)).write(CONTENT[:5])
    assert len(files(tmp_path)) == 1

    BlobStore(tmp_path / "artifacts").open()

    assert files(tmp_path) == []


def test_a_thread_that_writes_after_the_end(blobs, tmp_path):
    """Who waited for it was cancelled."""
    blob = blobs.begin(P, SHA256, len(CONTENT))
    blob.write(CONTENT[:5])
    blob.close()
    for late in (lambda: blob.write(CONTENT[5:]), blob.keep):
        with pytest.raises(ArtifactNotWrittenError):
            late()
    blob.close()

    assert files(tmp_path) == []


def test_a_missing_content_is_one_clear_line(blobs):
    with pytest.raises(StoreUnusableError, match=SHA256):
        blobs.read(P, SHA256, 0, 1)


def test_only_what_rested_is_removed(blobs, tmp_path):
    """Being found again is enough to stay: an attempt is about to refer to it."""
    old, found = put(blobs), put(blobs, b"found")
    now_s = time.time()
    for sha256 in (old, found):
        path = tmp_path / "artifacts" / "projects" / P / sha256[:2] / sha256
        os.utime(path, (now_s, now_s - GRACE_S - 10))
    fresh = put(blobs, b"fresh")

    resting = [path for batch in blobs.resting(now_s) for path in batch]
    assert sorted(path.name for path in resting) == sorted([old, found])
    blobs.missing(P, [found])
    assert blobs.remove_resting([*resting, resting[0].with_name(fresh)], now_s) == 1
    assert blobs.missing(P, [old, found, fresh]) == [old]
