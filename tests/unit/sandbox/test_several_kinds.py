"""One provider for all kinds: who gets which, and what a later process finds of an earlier one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.base import SandboxRequest
from sandbox.errors import EngineGoneError, SandboxUnavailableError
from sandbox.scripted import ScriptedProvider
from sandbox.several_kinds import SeveralKinds


class Kind(ScriptedProvider):
    """Counts what it is asked for, and can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []
        self.reaps = 0
        self.away = False

    async def create(self, request):
        self.made.append(request.name)
        return await super().create(request)

    async def reap(self) -> list[str]:
        self.reaps += 1
        if self.away:
            raise EngineGoneError("away")
        return ["left"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "workspaces" / "one"


def several(root: Path, default: str) -> tuple[SeveralKinds, dict[str, Kind]]:
    kinds = {"filesystem": Kind(), "container": Kind()}
    openers = {name: (lambda kind=kind: kind) for name, kind in kinds.items()}
    return SeveralKinds(default, openers, root), kinds


async def test_each_job_gets_what_it_asks_for(root: Path):
    """``auto`` is the first kind; leftovers of another are looked for once, before its first sandbox."""
    provider, kinds = several(root, "filesystem")
    await provider.probe()
    for number, kind in enumerate(("auto", "filesystem", "container", "container")):
        await provider.create(SandboxRequest(name=f"job-{number}", kind=kind))
    assert kinds["filesystem"].made == ["job-0", "job-1"]
    assert kinds["container"].made == ["job-2", "job-3"]
    assert (kinds["filesystem"].reaps, kinds["container"].reaps) == (0, 1)
    with pytest.raises(SandboxUnavailableError, match="kubernetes"):
        await provider.create(SandboxRequest(name="job-9", kind="kubernetes"))
    await provider.close()
    assert not root.exists()


async def test_what_a_killed_process_used_is_looked_for(root: Path):
    """Another kind only if it was used; one that is away then is tried again by the next."""
    first, _ = several(root, "filesystem")
    await first.probe()
    await first.create(SandboxRequest(name="job-1", kind="container"))
    second, kinds = several(root, "filesystem")  # the first was killed
    kinds["container"].away = True
    assert await second.reap() == ["left"]
    await second.close()
    third, kinds = several(root, "filesystem")
    await third.reap()
    assert kinds["container"].reaps == 1
    await third.close()
    fourth, kinds = several(root, "filesystem")
    await fourth.reap()
    assert kinds["container"].reaps == 0
    assert not root.exists()


async def test_a_folder_of_somebody_is_left_alone(root: Path):
    """Nothing was used, so nothing is removed, whatever the names in it."""
    (root / ".shared").mkdir(parents=True)
    (root / ".shared" / "theirs").touch()
    provider, _ = several(root, "container")
    await provider.close()
    assert (root / ".shared" / "theirs").exists()
