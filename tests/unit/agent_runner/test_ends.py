"""The ends of attempts that printed nothing, in one file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent_runner.client import Lease
from agent_runner.ends import PLACE_BYTES, SUFFIX, Ends
from agent_runner.outcome import EndReason, Outcome, OutputFile, OutputsRecord, SandboxRecord
from agent_runner.spool import Spool, leftovers

RECORD = b"an end" * 100


def lease(number: int) -> Lease:
    return Lease(job_id=f"j{number}", attempt=2, token=f"t-{number}")


def outcome(number: int) -> Outcome:
    return Outcome(
        end_reason=EndReason.EXITED, exit_code=number, sandbox=SandboxRecord(kind="k", tier="t")
    )


def sealed(folder: Path, ends: Ends, number: int) -> Spool:
    spool = Spool.create(folder, lease(number), ends)
    spool.seal(lease(number), outcome(number))
    return spool


def found(folder: Path) -> dict[Lease, Outcome | None]:
    return {each: spool.recover(each) for each, spool in leftovers(folder)}


def left(folder: Path) -> list[bytes]:
    return [record for ends in Ends.leftovers(folder) for record in ends.stored().values()]


def test_a_later_process_finds_what_the_server_does_not_have(tmp_path: Path) -> None:
    """Lease and outcome come back, of these and no others; the file goes with the last of them."""
    ends = Ends(tmp_path)
    spools = [sealed(tmp_path, ends, number) for number in range(3)]
    spools[1].remove()
    ends.close()
    spools = []
    for each, spool in leftovers(tmp_path):
        assert spool.recover(each) == outcome(0 if each == lease(0) else 2)
        assert (spool.length, spool.read(0, 9)) == (0, b"")
        spools.append(spool)
    assert found(tmp_path) == {lease(0): outcome(0), lease(2): outcome(2)}
    spools[0].remove()
    assert len(found(tmp_path)) == 1
    spools[1].remove()
    assert not list(tmp_path.iterdir())


def test_the_file_grows_with_what_runs_at_once_only(tmp_path: Path) -> None:
    """A place that is empty again is the next one's; the file is gone when nothing is in it and nothing runs."""
    ends = Ends(tmp_path)
    kept = ends.put(b"kept")
    for _ in range(5):
        place = ends.put(RECORD)
        assert place is not None
        ends.clear(place)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size <= 2 * PLACE_BYTES
    ends.rest()
    assert left(tmp_path) == [b"kept"]
    assert kept is not None
    ends.clear(kept)
    ends.rest()
    ends.rest()
    assert not list(tmp_path.iterdir())
    assert ends.put(RECORD) == 0
    assert left(tmp_path) == [RECORD]
    ends.close()
    ends.close()


@pytest.mark.parametrize("before", ["never used", "emptied"])
def test_a_write_that_was_cut_short_is_no_end(tmp_path: Path, before: str) -> None:
    """However much of it had reached the file when the process died."""
    ends = Ends(tmp_path)
    place = ends.put(RECORD[::-1])
    assert place is not None
    ends.clear(place)
    (path,) = tmp_path.iterdir()
    old = path.read_bytes() if before == "emptied" else b""
    assert ends.put(RECORD) == place
    written = path.read_bytes()
    for length in range(len(written)):
        path.write_bytes(written[:length] + old[length:])
        assert left(tmp_path) == []
        assert not path.exists()
    path.write_bytes(written)
    assert left(tmp_path) == [RECORD]
    ends.close()


@pytest.mark.parametrize("kind", ["a log", "a long message", "outputs"])
def test_others_have_a_file_of_their_own(tmp_path: Path, kind: str) -> None:
    """Whatever printed, whatever is too large for a place, and whatever has contents beside its spool."""
    ends = Ends(tmp_path)
    spool = Spool.create(tmp_path, lease(1), None if kind == "outputs" else ends)
    end = outcome(1)
    if kind == "a log":
        spool.write(b"said")
    elif kind == "outputs":
        files = (OutputFile("a", "5f", 1, 0o644),)
        end = Outcome(end_reason=EndReason.EXITED, outputs=OutputsRecord(files=files))
    else:
        end = Outcome(end_reason=EndReason.SANDBOX_FAILED, message="x" * PLACE_BYTES)
    spool.seal(lease(1), end)
    assert not list(tmp_path.glob(f"*{SUFFIX}"))
    assert found(tmp_path) == {lease(1): end}
    spool.remove()
    assert not list(tmp_path.iterdir())


def test_files_of_several_agent_runners_are_all_read(tmp_path: Path) -> None:
    """One that is no more has given its own to another."""
    for number in range(3):
        ends = Ends(tmp_path)
        sealed(tmp_path, ends, number)
        ends.close()
    assert found(tmp_path) == {lease(number): outcome(number) for number in range(3)}


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / f"folder{SUFFIX}").mkdir()
    (tmp_path / f"link{SUFFIX}").symlink_to("nowhere")
    assert left(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 2


def test_a_disk_that_fails_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that cannot be forgotten is there at the next start; a file that cannot be removed is found empty."""
    ends = Ends(tmp_path)
    first, second = ends.put(b"first"), ends.put(b"second")
    assert first is not None
    assert second is not None
    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", lambda *_: 0)
        ends.clear(first)
    ends.clear(second)
    ends.close()
    (left,) = Ends.leftovers(tmp_path)
    assert list(left.stored().values()) == [b"first"]
    left.clear(0)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", _refuse)
        left.rest()
    assert list(Ends.leftovers(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def _refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, "read-only")
