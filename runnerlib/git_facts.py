"""What a script wants to know of the repository that it runs in."""

from __future__ import annotations

from typing import Dict, List

from runnerlib.source import SourceProblem, git


def files_changed(folder: str, base: str) -> List[str]:
    """Return the files that differ between where this branch left another one and now, uncommitted ones included.

    Args:
        folder: In the repository.
        base: A branch, tag or commit; empty for the commit before this one.

    Raises:
        SourceProblem: It is no repository, or has no such commit.
    """
    if base.startswith("-"):
        raise SourceProblem("{!r} is no name of a commit".format(base))
    since = git(["merge-base", base, "HEAD"], folder) if base else _before(folder)
    changed = git(["diff", "--name-only", "-z", since, "--"], folder).split("\0")
    new = git(["ls-files", "--others", "--exclude-standard", "-z"], folder).split("\0")
    return sorted({name for name in (*changed, *new) if name})


def info(folder: str) -> Dict[str, str]:
    """Return commit, branch, author, subject and origin.

    Raises:
        SourceProblem: It is no repository.
    """
    facts = {
        "commit": ["rev-parse", "HEAD"],
        "short_commit": ["rev-parse", "--short", "HEAD"],
        "branch": ["rev-parse", "--abbrev-ref", "HEAD"],
        "author": ["log", "-1", "--format=%an <%ae>"],
        "time": ["log", "-1", "--format=%cI"],
        "subject": ["log", "-1", "--format=%s"],
        "root": ["rev-parse", "--show-toplevel"],
    }
    found = {name: git(command, folder) for name, command in facts.items()}
    try:
        found["url"] = git(["remote", "get-url", "origin"], folder)
    except SourceProblem:
        found["url"] = ""
    found["dirty"] = "true" if git(["status", "--porcelain"], folder) else "false"
    return found


def _before(folder: str) -> str:
    try:
        return git(["rev-parse", "--verify", "--quiet", "HEAD^"], folder)
    except SourceProblem:
        # The first commit: everything is new, compared with git's empty tree.
        return git(["hash-object", "-t", "tree", "/dev/null"], folder)
