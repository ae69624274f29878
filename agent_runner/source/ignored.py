"""What a copy leaves out: the files that .gitignore names and git does not track.

git itself reads the rules, but never the repository's configuration, which may name programs: it works with a
repository of ours that borrows only the list of tracked files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from functools import partial
from pathlib import Path

from agent_runner.source.git_command import Git
from sandbox.filesystem.settled import in_thread

_POINTER = "gitdir: "


async def ignored_paths(git: Git, place: Path, source: Path) -> frozenset[str]:
    """Return what is left out of a copy, relative to ``source``; a folder stands for all that is in it.

    The rules are those of the work tree that ``source`` lies in, and of a .gitignore in ``source``; without either nothing
    is left out. A person's own rules (core.excludesFile) do not count: a job must be the same for everybody.

    Args:
        git: Needs nothing but its environment.
        place: Private folder of the preparation.
        source: The folder that is copied.

    Raises:
        SourceError: git is not installed, or cannot read the list of tracked files.
    """
    source = await in_thread(partial(source.resolve, strict=True))
    top = next((folder for folder in (source, *source.parents) if (folder / ".git").exists()), None)
    if top is None:
        if not (source / ".gitignore").is_file():
            return frozenset()
        top = source
    repository = place / "ignored.git"
    await git.run("init", "--quiet", "--bare", "--template=", "--", str(repository))
    await in_thread(partial(_borrow, top / ".git", repository))
    # Never lists the second name. Of one alone git takes the folders for the beginning of every answer, and gives up
    # ("not superset of prefix", 2.39) where it answers with one of these folders, because that is ignored.
    names = (str(source), str(top / ".git"))
    answer = await git.run(
        *(f"--git-dir={repository}", f"--work-tree={top}", "--literal-pathspecs", "ls-files"),
        *("--others", "--ignored", "--exclude-standard", "--directory", "-z", "--", *names),
        folder=top,
    )
    prefix = os.fsencode(source.relative_to(top)) + b"/" if source != top else b""
    found = [entry.rstrip(b"/") for entry in answer.split(b"\0") if entry]
    if any(entry == prefix.rstrip(b"/") or prefix.startswith(entry + b"/") for entry in found):
        # The source itself is ignored, a folder of build results for example, and it was asked for.
        return frozenset()
    return frozenset(os.fsdecode(entry.removeprefix(prefix)) for entry in found)


def _borrow(dot_git: Path, repository: Path) -> None:
    """Copy the list of tracked files and the repository's own rules."""
    if dot_git.is_file():
        text = dot_git.read_text(errors="replace").strip()
        if not text.startswith(_POINTER):
            return
        dot_git = dot_git.parent / text.removeprefix(_POINTER)
    if not dot_git.is_dir():
        return
    (repository / "info").mkdir(exist_ok=True)
    for path in [*dot_git.glob("sharedindex.*"), dot_git / "index", dot_git / "info" / "exclude"]:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(path, repository / path.relative_to(dot_git))
