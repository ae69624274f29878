"""Outputs that are written into a folder of the host."""

from __future__ import annotations

import hashlib
import os

import pytest

from agent_runner.outcome import OutputFile
from agent_runner.outputs.restore import OutputsFolder, content_of


def output(name: str, content: bytes, mode: int = 0o644) -> OutputFile:
    return OutputFile(name, hashlib.sha256(content).hexdigest(), len(content), mode)


def test_content_and_mode(tmp_path):
    """Below folders that are made, whatever the umask says."""
    before = os.umask(0o077)
    try:
        OutputsFolder(tmp_path / "new", replace=False).put(
            output("a/b c\n", b"12", 0o755), [b"1", b"2"]
        )
    finally:
        os.umask(before)

    path = tmp_path / "new" / "a" / "b c\n"
    assert path.read_bytes() == b"12"
    assert path.stat().st_mode & 0o777 == 0o755
    assert b"".join(content_of(path)) == b"12"


@pytest.mark.parametrize("name", ["../x", "/x", "a/../x", "a//x", "", ".", "a/./x", "a\0"])
def test_names_that_leave_the_folder(tmp_path, name):
    folder = OutputsFolder(tmp_path / "in", replace=True)

    with pytest.raises(OSError, match="no path below"):
        folder.check([output(name, b"1")])
    with pytest.raises(OSError, match="no path below"):
        folder.put(output(name, b"1"), [b"1"])
    assert list(tmp_path.iterdir()) == []


def test_a_link_below_is_not_followed(tmp_path):
    """Neither as a folder nor as the file, which is replaced itself."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").write_bytes(b"old")
    (tmp_path / "in" / "d").symlink_to(tmp_path)
    (tmp_path / "in" / "f").symlink_to(tmp_path / "out")
    folder = OutputsFolder(tmp_path / "in", replace=True)

    with pytest.raises(OSError, match="d/x"):
        folder.put(output("d/x", b"1"), [b"1"])
    folder.put(output("f", b"1"), [b"1"])

    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert (tmp_path / "out").read_bytes() == b"old"
    assert (tmp_path / "in" / "f").read_bytes() == b"1"


def test_what_is_there_stays_unless_it_may_be_replaced(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    careful = OutputsFolder(tmp_path, replace=False)

    with pytest.raises(FileExistsError, match="--force"):
        careful.check([output("f", b"1")])
    with pytest.raises(FileExistsError, match="--force"):
        careful.put(output("f", b"1"), [b"1"])
    assert (tmp_path / "f").read_bytes() == b"old"
    OutputsFolder(tmp_path, replace=True).put(output("f", b"1"), [b"1"])
    assert (tmp_path / "f").read_bytes() == b"1"


def test_another_content_is_refused(tmp_path):
    """Nothing of it stays."""
    with pytest.raises(OSError, match="not the one that was recorded"):
        OutputsFolder(tmp_path, replace=False).put(output("f", b"12"), [b"1"])

    assert list(tmp_path.iterdir()) == []
