"""A bare mirror of one repository, shared by all jobs that name it, so that each fetches only what has changed.

Every job asks the server, with its own credentials, before it gets anything of the mirror: what one job may see another
without credentials must not. A mirror that turns out to be damaged is thrown away and fetched anew, once.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import NamedTuple

from agent_runner.errors import SourceError
from agent_runner.git_names import GitUrl, is_commit, is_short_commit
from agent_runner.source.git_command import Git, GitFailedError
from agent_runner.source.places import locked, remove_tree
from sandbox.filesystem.settled import in_thread

logger = logging.getLogger(__name__)

_REFSPECS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_EXTRA = "refs/runner"
"""Where refs are kept that are neither branches nor tags: nothing prunes them, and no job's copy shows them."""
_FETCH = (
    "fetch",
    "--quiet",
    "--force",
    "--prune",
    "--no-tags",
    "--no-write-fetch-head",
    "--no-recurse-submodules",
)
_ALLOWED = {"https": "https", "http": "http:https", "ssh": "ssh", "file": "file"}


class Revision(NamedTuple):
    """What a ref was resolved to."""

    commit: str
    branch: str = ""
    """The branch that is checked out; empty for a tag or a commit."""


class Mirror:
    """The mirror of one repository."""

    def __init__(self, path: Path, url: GitUrl, git: Git) -> None:
        """Name it; nothing is touched.

        Args:
            path: The folder; its lock is beside it.
            url: The repository.
            git: Has the credentials.
        """
        self.path = path
        self.lock = path.with_suffix(".lock")
        self._url = url
        self._git = git.with_env(GIT_ALLOW_PROTOCOL=_ALLOWED[url.scheme])

    async def update(self, ref: str, *, anew: bool = False) -> Revision:
        """Bring the mirror up to date and find a ref in it.

        Args:
            ref: As in the job; see ``git_names.check_ref``.
            anew: Throw away what is there first.

        Raises:
            SourceError: The server or the repository does not have it.
        """
        async with locked(self.lock) as fd:
            git = self._git.with_fd(fd)
            if anew:
                await in_thread(partial(remove_tree, self.path))
            await self._fetch(git)
            return await self._find(git, ref)

    async def _fetch(self, git: Git) -> None:
        existed = await in_thread(partial(_unlocked, self.path))
        if not existed:
            await in_thread(partial(remove_tree, self.path))
            await git.run("init", "--quiet", "--bare", str(self.path))
        try:
            await self._get(git, *_REFSPECS)
        except GitFailedError:
            if not existed:  # nothing was ever there: nothing of it stays
                await in_thread(partial(remove_tree, self.path))
                raise
            # Whose fault was it? If the server answers, a mirror that was there before is damaged.
            if not await git.succeeds("ls-remote", "--quiet", "--", self._url.text, "HEAD"):
                raise
            logger.warning("a mirror is fetched anew", extra={"action": "mirror_renewed"})
            await in_thread(partial(remove_tree, self.path))
            await git.run("init", "--quiet", "--bare", str(self.path))
            await self._get(git, *_REFSPECS)

    async def _get(self, git: Git, *refspecs: str) -> None:
        await git.run(f"--git-dir={self.path}", *_FETCH, "--", self._url.text, *refspecs)

    async def _find(self, git: Git, ref: str) -> Revision:
        if not ref:
            return await self._default(git)
        if is_commit(ref):
            if await self._commit(git, ref) is None:
                await self._get(git, f"+{ref}:{_EXTRA}/commit/{ref}")
            return Revision(await self._known(git, ref, ref))
        if ref.startswith("refs/"):
            return await self._full_ref(git, ref)
        if commit := await self._commit(git, f"refs/heads/{ref}"):
            return Revision(commit, ref)
        short = ref if is_short_commit(ref) else f"refs/tags/{ref}"
        for name in (f"refs/tags/{ref}", short):
            if commit := await self._commit(git, name):
                return Revision(commit)
        raise SourceError(f"the repository has no branch, tag or commit {ref}")

    async def _default(self, git: Git) -> Revision:
        answer = await git.run("ls-remote", "--quiet", "--symref", "--", self._url.text, "HEAD")
        target = ""
        for line in answer.decode("utf-8", "replace").splitlines():
            value, _, name = line.partition("\t")
            if name == "HEAD" and value.startswith("ref: "):
                target = value.removeprefix("ref: ")
            elif name == "HEAD" and not target:
                return Revision(await self._known(git, value, value))
        if not target:
            raise SourceError("the repository has no commit yet")
        branch = target.removeprefix("refs/heads/")
        return Revision(await self._known(git, target, branch), branch)

    async def _full_ref(self, git: Git, ref: str) -> Revision:
        if ref.startswith("refs/heads/"):
            return Revision(await self._known(git, ref, ref), ref.removeprefix("refs/heads/"))
        if ref.startswith("refs/tags/"):
            return Revision(await self._known(git, ref, ref))
        kept = f"{_EXTRA}/{ref}"
        await self._get(git, f"+{ref}:{kept}")
        return Revision(await self._known(git, kept, ref))

    async def _known(self, git: Git, name: str, shown: str) -> str:
        commit = await self._commit(git, name)
        if commit is None:
            raise SourceError(f"the repository has no commit at {shown}")
        return commit

    async def _commit(self, git: Git, name: str) -> str | None:
        try:
            answer = await git.run(
                *(f"--git-dir={self.path}", "rev-parse", "--quiet", "--verify"),
                *("--end-of-options", f"{name}^{{commit}}"),
            )
        except GitFailedError:
            return None
        return answer.decode().strip()


def _unlocked(mirror: Path) -> bool:
    """Tell whether there is a mirror; remove the lock files that a killed git left in it: our lock is held."""
    if not (mirror / "HEAD").is_file() or not (mirror / "objects").is_dir():
        return False
    for lock in [
        *mirror.glob("*.lock"),
        *mirror.glob("refs/**/*.lock"),
        *mirror.glob("objects/**/*.lock"),
    ]:
        lock.unlink(missing_ok=True)
    return True
