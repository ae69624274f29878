"""Preparing sources in a test: the real preparation, with a sandbox that keeps what it is given in memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from agent_runner.job_spec import JobSpec, SourceSpec
from agent_runner.outcome import SourceRecord
from agent_runner.source.places import SourceFolder
from agent_runner.source.preparation import Preparation
from sandbox.base import SandboxRequest
from sandbox.scripted import ScriptedProvider, ScriptedSandbox


class Desk:
    """Prepares sources below one folder, and shows what a job would see."""

    def __init__(self, root: Path) -> None:
        self.root = root / "sources"
        self.kept = root / "kept"
        self.files: dict[str, bytes] = {}
        self._number = 0

    async def prepare(
        self,
        source: SourceSpec | None = None,
        ci_source: SourceSpec | None = None,
        **credentials: str,
    ) -> SourceRecord:
        self._number += 1
        provider = ScriptedProvider(owner_label="test")
        sandbox = await provider.create(SandboxRequest(name=f"job-{self._number}"))
        assert isinstance(sandbox, ScriptedSandbox)
        keeping = _Keeping(sandbox, self.kept / str(self._number))
        preparation = Preparation(
            folder=SourceFolder(self.root), sandbox=keeping, credentials=credentials
        )
        spec = JobSpec(
            argv=("true",), source=source or SourceSpec(), ci_source=ci_source or SourceSpec()
        )
        try:
            return await preparation.run(spec)
        finally:
            self.files = dict(sandbox.files)
            await provider.close()

    async def git(self, url: str, ref: str = "", **options: Any) -> SourceRecord:
        return await self.prepare(SourceSpec(kind="git", url=url, ref=ref, **options))

    @property
    def tree(self) -> Path:
        """The work tree that the last job got."""
        return self.kept / str(self._number) / "src"

    def text(self, name: str) -> str:
        return (self.tree / name).read_text()

    def left(self) -> list[str]:
        """What is left of preparations."""
        work = self.root / "work"
        return os.listdir(work) if work.exists() else []


class _Keeping:
    """A sandbox that keeps a copy of each upload on disk."""

    def __init__(self, sandbox: ScriptedSandbox, kept: Path) -> None:
        self._sandbox = sandbox
        self._kept = kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sandbox, name)

    async def upload(
        self, source: Path, target: str, left_out: frozenset[str] = frozenset()
    ) -> None:
        await self._sandbox.upload(source, target, left_out)
        shutil.copytree(source, self._kept / target, symlinks=True, dirs_exist_ok=True)
