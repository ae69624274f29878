"""Puts the sources of one attempt into its sandbox, before the command is started."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from agent_runner.errors import SourceError
from agent_runner.git_names import parse_url
from agent_runner.job_spec import JOB_ROOT, JobSpec, SourceSpec
from agent_runner.outcome import SourceRecord
from agent_runner.source.checkout import Checkout
from agent_runner.source.git_settings import Access, git_for, has_lfs
from agent_runner.source.ignored import ignored_paths
from agent_runner.source.places import SourceFolder
from sandbox.base import Sandbox
from sandbox.env import OWNER_MARKER, SANDBOX_MARKER
from sandbox.errors import TransferRefusedError

CI_DIR = "ci"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """The sources of one attempt; ``run`` once."""

    folder: SourceFolder
    sandbox: Sandbox
    credentials: Mapping[str, str]
    """Values of ``source_credentials`` and ``ci_source_credentials``, by field."""

    async def run(self, spec: JobSpec) -> SourceRecord:
        """Put the source at ``code_dir`` and the trusted one at ``/job/ci``; called once per attempt that has one.

        Whatever is left of it on the host is removed before this returns, raises or is cancelled.

        Raises:
            SourceError: One is not there, cannot be read, or holds what cannot be copied.
        """
        target = PurePosixPath(spec.code_dir).relative_to(JOB_ROOT)
        try:
            async with self.folder.place(self.sandbox.base_env[SANDBOX_MARKER]) as place:
                commit = await self._put("source", spec.source, str(target), place)
                ci_commit = await self._put("ci_source", spec.ci_source, CI_DIR, place)
        except TransferRefusedError as error:
            raise SourceError(str(error)) from error
        except OSError as error:
            name = f"{error.filename}: " if error.filename else ""
            raise SourceError(f"the source cannot be prepared: {name}{error.strerror}") from error
        return SourceRecord(commit=commit, ci_commit=ci_commit)

    async def _put(self, field: str, source: SourceSpec, target: str, place: Path) -> str:
        """Put one source into the sandbox; return its commit id, if it has one."""
        if source.kind == "none":
            return ""
        inner = place / field
        await asyncio.to_thread(partial(inner.mkdir, mode=0o700))
        try:
            if source.kind == "git":
                return await self._check_out(field, source, target, inner)
            await self._copy(field, source, target, inner)
        except SourceError as error:
            raise SourceError(f"{field}: {error}") from error
        return ""

    async def _copy(self, field: str, source: SourceSpec, target: str, place: Path) -> None:
        path = Path(source.path)
        if not await asyncio.to_thread(path.is_dir):
            raise SourceError(f"{path} is not a directory on the agent-runner's host")
        with git_for(place, self._markers()) as git:
            left_out = await ignored_paths(git, place, path)
        await self.sandbox.upload(path, target, left_out)

    async def _check_out(self, field: str, source: SourceSpec, target: str, place: Path) -> str:
        url = parse_url(source.url)
        if source.lfs == "on" and not has_lfs():
            raise SourceError("git-lfs is not installed on the agent-runner's host")
        access = Access(
            url=url,
            secret=self.credentials.get(f"{field}_credentials", ""),
            lfs=source.lfs != "off" and has_lfs(),
            lfs_storage=self.folder.mirror(url).with_suffix(".lfs"),
            known_hosts=self.folder.known_hosts,
        )
        with git_for(place, self._markers(), access) as git:
            checkout = Checkout(
                folder=self.folder,
                git=git,
                url=url,
                ref=source.ref,
                depth=source.depth,
                submodules=source.submodules,
            )
            tree = place / "tree"
            commit = await checkout.into(tree)
        await self.sandbox.upload(tree, target)
        return commit

    def _markers(self) -> dict[str, str]:
        """Return what tells whose processes these are: a start after a crash removes them like those of a command."""
        return {name: self.sandbox.base_env[name] for name in (SANDBOX_MARKER, OWNER_MARKER)}
