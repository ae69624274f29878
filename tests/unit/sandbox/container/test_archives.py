"""Archives on their way in and out: made without following anything, read without trusting anything."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import tarfile
from pathlib import Path

import pytest

from sandbox.container.pack import Packer
from sandbox.container.unpack import check_file, check_folder, single_file
from sandbox.container.workspace_image import workspace_archive
from sandbox.errors import TransferRefusedError
from sandbox.job_path import path_parts

LIMIT = 1000


def archive(*entries: tuple[tarfile.TarInfo, bytes], pax: dict[str, str] | None = None) -> bytes:
    """Return an archive of these entries."""
    content = io.BytesIO()
    with tarfile.open(
        fileobj=content, mode="w", format=tarfile.PAX_FORMAT, pax_headers=pax or {}
    ) as tar:
        for entry, data in entries:
            tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def entry(
    name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tarfile.TarInfo:
    """Return one header."""
    made = tarfile.TarInfo(name)
    made.size, made.type, made.linkname = size, kind, link
    return made


def test_one_file_is_read():
    """What an engine sends for a file is its content."""
    assert single_file(archive((entry("f", 3), b"abc")), "f", LIMIT) == b"abc"
    assert single_file(archive((entry("f"), b"")), "f", 0) == b""
    long = "n" * 200
    assert single_file(archive((entry(long, 1), b"x")), long, LIMIT) == b"x"


HOSTILE = {
    "nothing": b"",
    "no archive": b"x" * 2000,
    "another name": archive((entry("../f", 3), b"abc")),
    "absolute": archive((entry("/f", 3), b"abc")),
    "link": archive((entry("f", kind=tarfile.SYMTYPE, link="/etc/passwd"), b"")),
    "hard link": archive((entry("f", kind=tarfile.LNKTYPE, link="/etc/passwd"), b"")),
    "folder": archive((entry("f", kind=tarfile.DIRTYPE), b"")),
    "device": archive((entry("f", kind=tarfile.CHRTYPE), b"")),
    "fifo": archive((entry("f", kind=tarfile.FIFOTYPE), b"")),
    "contiguous": archive((entry("f", 3, tarfile.CONTTYPE), b"abc")),
    "unknown kind": archive((entry("f", 3, b"Z"), b"abc")),
    "two files": archive((entry("f", 3), b"abc"), (entry("f", 3), b"abd")),
    "a link behind": archive(
        (entry("f", 1), b"a"), (entry("g", kind=tarfile.SYMTYPE, link="/"), b"")
    ),
    "too large": archive((entry("f", LIMIT + 1), b"x" * (LIMIT + 1))),
    "cut short": archive((entry("f", 900), b"x" * 900))[:700],
    "size of an extended header": archive((entry("f", 3), b"abc"), pax={"size": "99999999999"}),
    "path of an extended header": archive((entry("f", 3), b"abc"), pax={"path": "/etc/passwd"}),
    "sparse": archive(
        (entry("f", 3), b"abc"),
        pax={
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.realsize": "1099511627776",
        },
    ),
    "sparse map": archive(
        (entry("f", 3), b"abc"), pax={"GNU.sparse.size": "1099511627776", "GNU.sparse.map": "0,3"}
    ),
    "negative": archive((entry("f", 3), b"abc"), pax={"size": "-1"}),
    "not a number": archive((entry("f", 3), b"abc"), pax={"size": "x"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused(name):
    """Anything but one plain file of the right name and size is refused, and nothing else happens."""
    with pytest.raises(TransferRefusedError):
        single_file(HOSTILE[name], "f", LIMIT)


@pytest.mark.parametrize("path", ["/etc/passwd", "..", "src/../../x", "a\0b", "/"])
def test_a_path_outside_is_refused(path):
    """Only what is below the job root can be named."""
    with pytest.raises(TransferRefusedError):
        path_parts(path)


def facts(mode: object, size: int = 1) -> str:
    """Return the header about a path."""
    return base64.b64encode(json.dumps({"mode": mode, "size": size}).encode()).decode()


def test_what_a_path_is_comes_from_its_mode():
    """Go's bits: a folder has one of them, a regular file none."""
    check_folder(facts(1 << 31 | 0o755), "d")
    check_file(facts(0o644, LIMIT), "f", LIMIT)
    check_file(facts(1 << 23 | 1 << 20 | 0o644), "f", LIMIT)  # setuid and sticky are no kinds
    for bit in (31, 27, 26, 25, 24, 21, 19):
        with pytest.raises(TransferRefusedError):
            check_file(facts(1 << bit | 0o644), "f", LIMIT)
    for mode in (0o644, 1 << 27 | 0o777, 1 << 31 | 1 << 27):
        with pytest.raises(TransferRefusedError):
            check_folder(facts(mode), "d")
    with pytest.raises(TransferRefusedError):
        check_file(facts(0o644, LIMIT + 1), "f", LIMIT)


@pytest.mark.parametrize(
    "said", ["", "!", facts("x"), facts(None), base64.b64encode(b"[1]").decode()]
)
def test_an_engine_that_does_not_say_is_not_believed(said):
    """Without a mode nothing is read."""
    with pytest.raises(TransferRefusedError):
        check_file(said, "f", LIMIT)


def packed(source: Path, packer: Packer, *parents: str) -> dict[str, tarfile.TarInfo]:
    """Return what is in the archive of a folder."""
    content = io.BytesIO(b"".join(packer.pieces(source, parents)))
    with tarfile.open(fileobj=content, errors="surrogateescape") as tar:
        return {member.name: member for member in tar}


def test_a_folder_is_packed_as_it_is(tmp_path):
    """Modes, links, awkward names and owners; nothing is followed, no right to become somebody else goes in."""
    (tmp_path / "run").write_text("x")
    (tmp_path / "run").chmod(0o6755)
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d" / "a\n\udcff").write_bytes(b"y" * 600)
    os.symlink(tmp_path, tmp_path / "self")
    found = packed(tmp_path, Packer(owner=1000), "src", "deep")
    assert sorted(found) == [
        "src/deep",
        "src/deep/d",
        "src/deep/d/a\n\udcff",
        "src/deep/run",
        "src/deep/self",
    ]
    assert {(one.uid, one.gid) for one in found.values()} == {(1000, 1000)}
    assert (found["src/deep/run"].mode, found["src/deep/d"].mode) == (0o755, 0o700)
    assert found["src/deep/self"].issym()
    assert found["src/deep/d/a\n\udcff"].size == 600


def test_what_is_left_out_is_not_packed(tmp_path):
    """By path below the source, a folder with all that is in it."""
    for name in ("a/b/c", "a/d", "b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    packer = Packer(owner=0, left_out=frozenset({"a/b", "b"}))
    assert sorted(packed(tmp_path, packer)) == ["a", "a/d"]


def test_what_is_special_is_refused_by_name(tmp_path):
    """A FIFO and a socket have no place in an archive."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TransferRefusedError, match="pipe"):
        packed(tmp_path, Packer(owner=0))
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{os.open(tmp_path, os.O_PATH)}/sock")
        with pytest.raises(TransferRefusedError, match="sock"):
            packed(tmp_path, Packer(owner=0))


def test_a_file_that_shrinks_meanwhile_keeps_the_archive_whole(tmp_path):
    """The header is on its way already: what is missing is filled up."""
    (tmp_path / "a").write_bytes(b"x" * 5000)
    pieces = Packer(owner=0).pieces(tmp_path, ())
    first = next(pieces)
    os.truncate(tmp_path / "a", 10)
    content = io.BytesIO(first + b"".join(pieces))
    with tarfile.open(fileobj=content) as tar:
        member = tar.extractfile("a")
        assert member is not None
        assert member.read() == b"x" * 10 + b"\0" * 4990


def test_nothing_follows_the_end_of_an_archive(tmp_path):
    """Podman stops reading there, and may then refuse all of it for what it was not given time to take."""
    whole = b"".join(Packer(owner=0).pieces(tmp_path, ("src",)))
    for archive, names in ((whole, []), (workspace_archive("job"), [".", "src", "ci"])):
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            assert tar.getnames() == names
        assert len(archive) == tarfile.BLOCKSIZE * (len(names) + 2)
