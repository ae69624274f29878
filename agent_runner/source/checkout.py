"""A work tree of its own for each job, made from a mirror without the network; submodules too, each from its mirror."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent_runner.errors import SourceError
from agent_runner.git_names import GitUrl, parse_url
from agent_runner.source.git_command import Git, GitFailedError
from agent_runner.source.mirror import Mirror, Revision
from agent_runner.source.places import SourceFolder, locked, remove_tree
from sandbox.filesystem.settled import in_thread

_LFS_FAILED = "smudge filter lfs failed"
"""What git says when a large file is not to be had, which is not the mirror's fault."""
MAX_SUBMODULES = 200
"""In all of a tree: each may have more below it."""
_GITLINK = "160000 "
"""How the mode of a submodule begins in the index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """What to check out, and with what."""

    folder: SourceFolder
    git: Git
    """Has the credentials."""
    url: GitUrl
    ref: str
    depth: int = 0
    submodules: bool = False

    async def into(self, tree: Path) -> str:
        """Check out into a folder that does not exist yet; return the commit id.

        Called once. A mirror that cannot be read is fetched anew, once.

        Raises:
            SourceError: It cannot be had.
        """
        mirror = Mirror(self.folder.mirror(self.url), self.url, self.git)
        revision = await mirror.update(self.ref)
        try:
            await self._from_mirror(mirror, revision, tree)
        except GitFailedError as error:
            if _LFS_FAILED in str(error):
                raise
            await in_thread(partial(remove_tree, tree))
            revision = await mirror.update(self.ref, anew=True)
            await self._from_mirror(mirror, revision, tree)
        if self.submodules:
            await self._submodules(tree)
        return revision.commit

    async def _from_mirror(self, mirror: Mirror, revision: Revision, tree: Path) -> None:
        async with locked(mirror.lock, shared=True) as fd:
            git = self._offline().with_fd(fd)
            await self._objects(git, mirror.path, revision, tree)
            await git.run("config", "remote.origin.url", self.url.text, folder=tree)
            if revision.branch:
                remote = f"refs/remotes/origin/{revision.branch}"
                await git.run(
                    *("checkout", "--quiet", "--force", "--track"),
                    *("-B", revision.branch, remote),
                    folder=tree,
                )
            else:
                await git.run(
                    "checkout", "--quiet", "--force", "--detach", revision.commit, folder=tree
                )

    async def _objects(self, git: Git, mirror: Path, revision: Revision, tree: Path) -> None:
        """Give the tree its history: links to the files of the mirror, or as many commits as were asked for."""
        if not self.depth:
            await git.run(
                *("clone", "--quiet", "--local", "--no-checkout", "--template="),
                *("--", str(mirror), str(tree)),
            )
            return
        kept = f"refs/remotes/origin/{revision.branch}" if revision.branch else "refs/runner/source"
        await git.run("init", "--quiet", "--template=", "--", str(tree))
        await git.run("remote", "add", "origin", self.url.text, folder=tree)
        await git.run(
            *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", f"--depth={self.depth}"),
            *("--", f"file://{mirror}", f"+{revision.commit}:{kept}"),
            folder=tree,
        )

    async def _submodules(self, tree: Path) -> None:
        """Check out the submodules of a tree, and theirs. What they name is the repository's word: each is checked."""
        pending, count = [tree], 0
        while pending:
            folder = pending.pop()
            if not await in_thread(partial(_has_submodules, folder, tree)):
                continue
            commits = await _gitlinks(self._offline(), folder)
            count += len(commits)
            if count > MAX_SUBMODULES:
                raise SourceError(f"there are more than {MAX_SUBMODULES} submodules")
            await self._submodules_of(folder, commits)
            pending += [folder / path for path in commits]

    async def _submodules_of(self, tree: Path, commits: dict[str, str]) -> None:
        await self._offline().run("submodule", "--quiet", "init", folder=tree)
        mirrors = await self._submodule_mirrors(tree, commits)
        git = self._offline().with_env(**_replacements(mirrors))
        async with contextlib.AsyncExitStack() as held:
            for mirror in {mirror.lock: mirror for mirror in mirrors.values()}.values():
                fd = await held.enter_async_context(locked(mirror.lock, shared=True))
                git = git.with_fd(fd)
            await git.run("submodule", "--quiet", "update", "--checkout", "--force", folder=tree)

    async def _submodule_mirrors(self, tree: Path, commits: dict[str, str]) -> dict[str, Mirror]:
        """Bring the mirror of each submodule up to date; return them by URL."""
        urls = await _settings(self._offline(), tree, "url")
        paths = await _settings(self._offline(), tree, "path", "--file", ".gitmodules")
        mirrors = {}
        for name, text in urls.items():
            url = self._submodule_url(name, text)
            mirrors[text] = Mirror(self.folder.mirror(url), url, self.git)
            await mirrors[text].update(commits.get(paths.get(name, ""), ""))
        return mirrors

    def _submodule_url(self, name: str, text: str) -> GitUrl:
        try:
            url = parse_url(text)
        except ValueError as error:
            raise SourceError(f"the URL of the submodule {name!r} {error}") from None
        if url.scheme == "file" and self.url.scheme != "file":
            raise SourceError(f"the submodule {name!r} names a file of the agent-runner's host")
        return url

    def _offline(self) -> Git:
        return self.git.with_env(GIT_ALLOW_PROTOCOL="file")


async def _gitlinks(git: Git, tree: Path) -> dict[str, str]:
    """Return the commits that the index wants of submodules, by path."""
    found = {}
    for entry in os.fsdecode(await git.run("ls-files", "--stage", "-z", folder=tree)).split("\0"):
        facts, _, path = entry.partition("\t")
        if facts.startswith(_GITLINK):
            found[path] = facts.split()[1]
    return found


async def _settings(git: Git, tree: Path, name: str, *where: str) -> dict[str, str]:
    """Return one setting of all submodules, by their names."""
    pattern = f"^submodule\\..*\\.{name}$"
    try:
        answer = await git.run("config", *where, "--null", "--get-regexp", pattern, folder=tree)
    except GitFailedError:  # there is none
        return {}
    entries = (entry.partition("\n") for entry in os.fsdecode(answer).split("\0") if entry)
    return {key[len("submodule.") : -len(name) - 1]: value for key, _, value in entries}


def _has_submodules(folder: Path, tree: Path) -> bool:
    """Tell whether a folder of a tree names submodules; what a link leads to is no folder of it."""
    return folder.resolve().is_relative_to(tree.resolve()) and (folder / ".gitmodules").is_file()


def _replacements(mirrors: dict[str, Mirror]) -> dict[str, str]:
    """Return the variables that make git read mirrors instead of what URLs name.

    git takes the longest beginning of a URL that is named, and each whole URL is.
    """
    variables = {"GIT_CONFIG_COUNT": str(len(mirrors))}
    for number, (url, mirror) in enumerate(mirrors.items()):
        variables[f"GIT_CONFIG_KEY_{number}"] = f"url.{mirror.path}.insteadOf"
        variables[f"GIT_CONFIG_VALUE_{number}"] = url
    return variables
