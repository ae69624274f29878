"""The socket of a sandbox: whose it is, however long its path, and what gets no answer."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from runnerlib.mask import NotMaskedError, add_secret
from sandbox.job_socket import FOLDER, MAX_LINE_BYTES, SOCKET, JobSocket, install


async def accept(line: bytes) -> bytes:
    return b'{"ok": true}' if b"Z29vZA==" in line else b'{"ok": false, "error": "not good"}'


@pytest.fixture(params=["short", "long"])
def job(request, tmp_path_factory) -> Path:
    """A workspace, also one whose path no socket address can hold."""
    folder = tmp_path_factory.mktemp("w")
    if request.param == "long":
        folder = folder / ("x" * 120)
        folder.mkdir()
    return folder


async def ask(job: Path, value: bytes, monkeypatch) -> None:
    monkeypatch.setenv("RUNNER_MASK_SOCKET", str(job / FOLDER / SOCKET))
    monkeypatch.setenv("RUNNER_MASK_TOKEN", "t")
    await asyncio.to_thread(add_secret, value)


async def test_answers_by_a_path_of_any_length(job, monkeypatch):
    """The client of the package reaches it and takes yes and no for what they are."""
    install(job)
    door = JobSocket(accept)
    await door.open(job, None)
    try:
        await ask(job, b"good", monkeypatch)
        with pytest.raises(NotMaskedError, match="not good"):
            await ask(job, b"bad", monkeypatch)
        with pytest.raises(NotMaskedError, match="does not answer"):
            await ask(job, b"x" * MAX_LINE_BYTES, monkeypatch)
        assert stat.S_IMODE(os.stat(job / FOLDER / SOCKET).st_mode) == 0o600
    finally:
        door.close()
        door.close()
    with pytest.raises(NotMaskedError, match="does not answer"):
        await ask(job, b"good", monkeypatch)


async def test_without_a_socket_nothing_is_pretended(monkeypatch):
    """A job that has no way to the runner learns it."""
    monkeypatch.delenv("RUNNER_MASK_SOCKET", raising=False)
    with pytest.raises(NotMaskedError, match="::add-mask::"):
        add_secret(b"value")


def test_the_program_is_for_everybody_and_nobody_s(tmp_path):
    """Commands of another user can run it, whatever the umask was."""
    before = os.umask(0o077)
    try:
        install(tmp_path)
    finally:
        os.umask(before)

    program = tmp_path / FOLDER / "bin" / "runnerlib"
    assert stat.S_IMODE(program.stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / FOLDER / "lib" / "runnerlib").stat().st_mode) == 0o755
    with pytest.raises(FileExistsError):
        install(tmp_path)
