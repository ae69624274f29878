"""What a single run does before and after its job."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from agent_runner.job_spec import JobSpec
from agent_runner.one_shot import OneShot, one_shot
from agent_runner.outcome import EndReason
from agent_runner.secret_source import GivenSecrets
from sandbox.base import Capabilities
from sandbox.errors import SandboxBrokenError, SandboxUnavailableError
from sandbox.scripted import ScriptedProvider


class Provider(ScriptedProvider):
    """Keeps a folder, as the real one does, and fails where a test wants it."""

    def __init__(self, root: Path, failures: dict[str, Exception]) -> None:
        super().__init__()
        self._root = root
        self._failures = failures

    async def probe(self) -> Capabilities:
        self._root.mkdir(parents=True)
        self._fail("probe")
        return await super().probe()

    async def reap(self) -> list[str]:
        self._fail("reap")
        return await super().reap()

    async def close(self) -> None:
        await super().close()
        if self._root.is_dir():
            self._root.rmdir()

    def _fail(self, name: str) -> None:
        if name in self._failures:
            raise self._failures[name]


def a_shot(folder: Path, failures: dict[str, Exception] | None = None, **env: str) -> OneShot:
    def providers(_kind: str, *, root: Path, **_options: Any) -> Provider:
        return Provider(root, failures or {})

    return OneShot(
        job_id="job",
        spec=JobSpec(argv=("true",), env=env),
        secrets=GivenSecrets({}),
        source_dir=folder / "sources",
        workspaces=folder / "workspaces",
        owner_label="test",
        providers=providers,
    )


async def test_a_tier_that_does_not_work_leaves_no_folder(tmp_path):
    """The probe fails after it has made its folder."""
    shot = a_shot(tmp_path, {"probe": SandboxUnavailableError("no tier works")})
    with pytest.raises(SandboxUnavailableError):
        await one_shot(shot, lambda _: None, lambda _: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(1, "Operation not permitted"), SandboxBrokenError("x")])
async def test_a_dead_folder_that_stays_is_a_warning(tmp_path, caplog, error):
    """What an earlier run left and nobody can remove does not keep this job from running."""
    dead = tmp_path / "workspaces" / "run-local-1-1"
    dead.mkdir(parents=True)
    output: list[bytes] = []
    shot = a_shot(tmp_path, {"reap": error}, SCRIPT_OUTPUT="hello\n")
    outcome = await one_shot(shot, output.append, lambda _: None)
    assert (outcome.end_reason, b"".join(output)) == (EndReason.EXITED, b"hello\n")
    assert str(dead) in caplog.text
    assert dead.is_dir()


async def test_an_output_that_cannot_be_written_is_the_error_of_the_run(tmp_path):
    """A full disk behind the output: the job is stopped and the caller is told why."""

    def full(_data: bytes) -> None:
        raise OSError(28, "No space left on device")

    shot = a_shot(tmp_path, SCRIPT_OUTPUT="hello\n", SCRIPT_SLEEP_S="600")
    with pytest.raises(OSError, match="No space left"):
        await one_shot(shot, full, lambda _: None)


async def test_a_reader_that_was_given_up_is_no_success(tmp_path):
    """Told to end twice while nobody reads: the run ends without its output, and says so."""
    reading = threading.Event()

    def stuck(_data: bytes) -> None:
        os.kill(os.getpid(), 15)
        os.kill(os.getpid(), 2)
        reading.wait(60)

    shot = a_shot(tmp_path, SCRIPT_OUTPUT="hello\n")
    outcome = await one_shot(shot, stuck, lambda _: None)
    reading.set()
    assert outcome.end_reason is EndReason.CANCELLED
