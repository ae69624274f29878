"""Files of a watched folder, whatever they are called: claimed once, and kept under a name that the file system takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.pipelines.watched_folder import DONE, RESULT, WatchedFolder

LONG = ["n" * 250 + ".yaml", "n" * 249 + "m.yaml", "\u00e4" * 125 + ".yml"]


@pytest.mark.parametrize("name", ["a.yaml", "-e.json", "\udcff.yaml", "a\nb.yml", *LONG])
def test_a_file_is_kept_with_its_result(tmp_path: Path, name: str) -> None:
    """Twice under the same name, too: both stay."""
    watched = WatchedFolder(tmp_path)
    watched.prepare()
    kept = []
    for _ in range(2):
        (tmp_path / name).write_text("job_command: x\n")
        assert not list(watched.claims(9))
        (claim,) = watched.claims(9)
        kept.append(claim.finish({"state": "SUCCEEDED"}, succeeded=True))

    assert sorted(os.listdir(tmp_path / DONE)) == sorted(
        name for path in kept for name in (path.name, f"{path.name}{RESULT}")
    )
    if name not in LONG:
        assert kept[0].name == name


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    """A FIFO would be waited for, and a link leads elsewhere."""
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "link.yaml").symlink_to("/etc/passwd")
    (tmp_path / "folder.yaml").mkdir()
    watched = WatchedFolder(tmp_path)
    assert [list(watched.claims(9)) for _ in range(2)] == [[], []]
