"""The memory of job files: it knows the same file again, and tells nobody else what is in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.cli.job_input import JobDocument, Overlays
from daemon.cli.job_memory import MAX_JOBS, JobMemory

TEXT = b"""
job_command: echo hunter2-in-clear
env: {A: "1.10", B: "${secret:local:B}"}
timeout_seconds: 2.5
retries: {max: 2, on: [75, TIMED_OUT]}
sandbox: {network: [example.org], memory: 2GiB}
outputs: ["*.txt"]
"""
PLAIN = Overlays([], allow_secret_overrides=False)


def document(content: bytes = TEXT, name: str = "job.yaml", base: str = "/base") -> JobDocument:
    return JobDocument(name, content, Path(base))


def memory(folder: Path, read: JobDocument, overlays: Overlays = PLAIN) -> JobMemory:
    return JobMemory(folder / "jobs", overlays.question(read))


def kept(folder: Path, read: JobDocument) -> Path:
    """Keep a job and return the one file that holds it."""
    memory(folder, read).keep(PLAIN.load(read))
    (file,) = (folder / "jobs").iterdir()
    return file


def test_the_same_file_gives_the_same_job(tmp_path: Path) -> None:
    """Every field is as it was read."""
    assert memory(tmp_path, document()).find() is None
    kept(tmp_path, document())
    assert memory(tmp_path, document()).find() == PLAIN.load(document())


@pytest.mark.parametrize(
    ("other", "overlays"),
    [
        (document(TEXT + b" "), PLAIN),
        (document(name="other.yaml"), PLAIN),
        (document(base="/base/dir"), PLAIN),
        (document(), Overlays([], allow_secret_overrides=True)),
        (document(), Overlays([document()], allow_secret_overrides=False)),
    ],
)
def test_another_question_is_not_known(
    tmp_path: Path, other: JobDocument, overlays: Overlays
) -> None:
    """The bytes, the name, the folder, what is laid over and the flags all decide."""
    kept(tmp_path, document())
    assert memory(tmp_path, other, overlays).find() is None


def test_what_is_kept_is_private_and_sealed(tmp_path: Path) -> None:
    """Who reads the folder without the job file learns nothing of it."""
    file = kept(tmp_path, document())
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    content = file.read_bytes()
    assert all(word not in content for word in (b"hunter2", b"argv", b"example", b"local"))


@pytest.mark.parametrize("damage", [b"", b"short", b"\0" * 5000])
def test_what_is_damaged_is_not_known(tmp_path: Path, damage: bytes) -> None:
    """A file that was cut or changed is read from the job file again, and replaced."""
    file = kept(tmp_path, document())
    whole = file.read_bytes()
    for content in (damage, whole[:-1], whole + b"x", whole[:20] + b"\0\0" + whole[22:]):
        file.write_bytes(content)
        assert memory(tmp_path, document()).find() is None
    assert kept(tmp_path, document()).read_bytes() == whole


def test_what_others_could_write_is_not_known(tmp_path: Path) -> None:
    """Neither a folder nor a file that more than its owner may change is believed."""
    file = kept(tmp_path, document())
    for path in (file, file.parent):
        mode = path.stat().st_mode
        path.chmod(0o777)
        assert memory(tmp_path, document()).find() is None
        path.chmod(mode)
    assert memory(tmp_path, document()).find() is not None


def test_a_moment_that_is_counted_from_now_is_not_kept(tmp_path: Path) -> None:
    """It would be another one the next time."""
    later = document(b"job_command: 'true'\nnot_before: 5m\n")
    memory(tmp_path, later).keep(PLAIN.load(later))
    assert memory(tmp_path, later).find() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_nothing_is_left_in_the_state_of_somebody_else(tmp_path: Path) -> None:
    """Root could write there, and would leave what its owner cannot use."""
    os.chown(tmp_path, 64123, -1)
    memory(tmp_path, document()).keep(PLAIN.load(document()))
    assert not (tmp_path / "jobs").exists()


def test_a_folder_that_cannot_be_used_is_no_error(tmp_path: Path) -> None:
    """The job is read again then."""
    (tmp_path / "jobs").write_text("no folder")
    memory(tmp_path, document()).keep(PLAIN.load(document()))
    assert memory(tmp_path, document()).find() is None


def test_the_oldest_make_room(tmp_path: Path) -> None:
    """The folder stays small, and what a killed run left half written goes too."""
    oldest = kept(tmp_path, document())
    half = oldest.with_name(f"{oldest.name}.1")
    half.touch()
    for file in (oldest, half):
        os.utime(file, (1, 1))
    spec = PLAIN.load(document())
    for number in range(MAX_JOBS):
        memory(tmp_path, document(name=f"{number}.yaml")).keep(spec)
    assert len(list(oldest.parent.iterdir())) == MAX_JOBS
    assert not oldest.exists()
    assert not half.exists()
