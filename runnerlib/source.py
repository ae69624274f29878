"""Prepares a source from inside a sandbox, for jobs whose job file leaves that to their command, and clears it away.

The runner's own source preparation happens outside, before the command; this needs nothing but git and the folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import List

from runnerlib.facts import job_root

SCHEMES = ("https://", "http://", "ssh://", "file://", "/")
KEPT = (".runner",)
"""What is the runner's own in the workspace."""


class SourceProblem(Exception):  # noqa: N818 - told as it is
    """The source cannot be had; says why."""


def checkout(url: str, ref: str, target: str) -> str:
    """Clone a repository, go to a branch, tag or commit of it, and return the commit's id.

    Raises:
        SourceProblem: Git does not, or the folder is not empty.
    """
    scp_like = "@" in url.split("/", maxsplit=1)[0] and ":" in url
    if url.startswith("-") or ref.startswith("-") or not (url.startswith(SCHEMES) or scp_like):
        raise SourceProblem(
            "neither {!r} nor {!r} may be an option or another program".format(url, ref)
        )
    _make_empty(target)
    git(["clone", "--quiet", "--no-checkout", "--", url, target])
    if not ref:
        return _head(["checkout", "--quiet"], target)
    try:
        commit = git(["rev-parse", "--verify", "--quiet", "origin/" + ref + "^{commit}"], target)
    except SourceProblem:
        commit = git(["rev-parse", "--verify", ref + "^{commit}"], target)
    return _head(["checkout", "--quiet", "--detach", commit], target)


def copy(source: str, target: str) -> None:
    """Copy the content of a folder; links stay links.

    Raises:
        SourceProblem: It cannot be read, or the target is not empty.
    """
    if not os.path.isdir(source):
        raise SourceProblem("{} is no folder".format(source))
    inside = os.path.realpath(target) + os.sep
    if inside.startswith(os.path.realpath(source) + os.sep):
        raise SourceProblem("{} lies in {}".format(target, source))
    _make_empty(target)
    try:
        for name in sorted(os.listdir(source)):
            path, copied = os.path.join(source, name), os.path.join(target, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.copytree(path, copied, symlinks=True)
            else:
                shutil.copy2(path, copied, follow_symlinks=False)
    except (OSError, shutil.Error) as error:
        raise SourceProblem("cannot copy {}: {}".format(source, error)) from error


def cleanup() -> List[str]:
    """Remove what is in the workspace, and return what could not be."""
    root = job_root()
    left = []
    for name in sorted(os.listdir(root)):
        if name in KEPT:
            continue
        path = os.path.join(root, name)
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        except OSError:
            left.append(path)
    return left


def _make_empty(target: str) -> None:
    try:
        os.makedirs(target, exist_ok=True)
        if os.listdir(target):
            raise SourceProblem("{} is not empty".format(target))
    except OSError as error:
        raise SourceProblem("cannot use {}: {}".format(target, error.strerror)) from error


def _head(command: List[str], folder: str) -> str:
    git(command, folder)
    return git(["rev-parse", "HEAD"], folder)


def git(arguments: List[str], folder: str = ".") -> str:
    """Run git and return what it printed.

    Raises:
        SourceProblem: It failed; holds its last lines.
    """
    environment = dict(
        os.environ, GIT_TERMINAL_PROMPT="0", GIT_ALLOW_PROTOCOL="https:http:ssh:file"
    )
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments],  # noqa: S607
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
    except FileNotFoundError:
        raise SourceProblem("git is not installed") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SourceProblem("git {}: {}".format(arguments[0], " ".join(said[-2:]) or "failed"))
    return done.stdout.decode("utf-8", "replace").strip()
