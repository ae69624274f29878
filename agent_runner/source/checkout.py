"""A work tree of its own for each job, made from a mirror without the network; submodules too, each from its mirror."""

from __future__ import annotations

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

MAX_SUBMODULES = 200
MAX_SUBMODULE_DEPTH = 8
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
        except GitFailedError:
            await in_thread(partial(remove_tree, tree))
            revision = await mirror.update(self.ref, anew=True)
            await self._from_mirror(mirror, revision, tree)
        if self.submodules:
            await self._submodules(tree, 0)
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

    async def _submodules(self, tree: Path, level: int) -> None:
        """Check out the submodules of a tree, and theirs. What they name is the repository's word: each is checked."""
        commits = await _gitlinks(self._offline(), tree) if (tree / ".gitmodules").exists() else {}
        if not commits:
            return
        if level >= MAX_SUBMODULE_DEPTH or len(commits) > MAX_SUBMODULES:
            most = f"{MAX_SUBMODULES} in one repository, {MAX_SUBMODULE_DEPTH} deep"
            raise SourceError(f"there are more submodules than are checked out: {most}")
        await self._offline().run("submodule", "--quiet", "init", folder=tree)
        mirrors = await self._submodule_mirrors(tree, commits)
        git = self._offline().with_env(**_replacements(mirrors))
        await git.run("submodule", "--quiet", "update", "--checkout", "--force", folder=tree)
        for path in commits:
            if _is_inside(tree / path, tree):
                await self._submodules(tree / path, level + 1)

    async def _submodule_mirrors(self, tree: Path, commits: dict[str, str]) -> dict[str, Path]:
        """Bring the mirror of each submodule up to date; return them by URL."""
        mirrors = {}
        for name, text in (await _settings(self._offline(), tree, "url")).items():
            url = self._submodule_url(name, text)
            mirror = Mirror(self.folder.mirror(url), url, self.git)
            path = (await _settings(self._offline(), tree, "path", "--file", ".gitmodules")).get(
                name
            )
            await mirror.update(commits.get(path or "", ""))
            mirrors[text] = mirror.path
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


def _is_inside(path: Path, tree: Path) -> bool:
    """Tell whether a folder of a tree is one, and not a link to somewhere else."""
    return path.is_dir() and path.resolve().is_relative_to(tree.resolve())


def _replacements(mirrors: dict[str, Path]) -> dict[str, str]:
    """Return the variables that make git read mirrors instead of what URLs name.

    git takes the longest beginning of a URL that is named, and each whole URL is.
    """
    variables = {"GIT_CONFIG_COUNT": str(len(mirrors))}
    for number, (url, path) in enumerate(mirrors.items()):
        variables[f"GIT_CONFIG_KEY_{number}"] = f"url.{path}.insteadOf"
        variables[f"GIT_CONFIG_VALUE_{number}"] = url
    return variables
