"""The command line of bubblewrap: pure, so that what a wall rests on can be read and tested.

The options travel by ``--args FD`` as NUL-separated blocks: on the command line they would show the
job's environment to everybody who can run ps. Blocks that do not change are joined once.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox.base import Network
from sandbox.env import JOB_ROOT, JOB_UID
from sandbox.errors import SandboxUnavailableError
from sandbox.filesystem.checkouts import NO_CHECKOUTS, Checkouts
from sandbox.filesystem.system_files import SYSTEM_FOLDERS
from sandbox.filesystem.workspace import Workspace

BWRAP = "/usr/bin/bwrap"
HOME = "/home/job"
TMP = "/tmp"  # noqa: S108  # the private one inside
BUBBLEWRAP_PROCESSES = 2
"""Its own beside those of a command: the monitor, and the init of the namespace."""
HELD_PREFIXES = (b"bwrap: ", b"prlimit: ")
"""How the lines of the programs in front of a command begin; they share its stderr."""


def block(options: Sequence[str]) -> bytes:
    """Return options as bubblewrap reads them from a descriptor."""
    return os.fsencode("\0".join((*options, "")))


def trusted_program(path: str) -> str:
    """Return the path of a program that only root can have put there.

    Raises:
        SandboxUnavailableError: It is missing, writable by others, not root's, or setuid.
    """
    name = Path(path).name
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError as error:
        raise SandboxUnavailableError(f"{name} is missing: install it as {path}") from error
    if found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SandboxUnavailableError(
            f"{path} is not trusted: it is not root's, or others can write it"
        )
    if found.st_mode & stat.S_ISUID:
        raise SandboxUnavailableError(f"{path} is setuid root: use a bubblewrap without it")
    return path


def wall_options(etc: Path, *, disable_userns: bool) -> list[str]:
    """Return what is the same for every sandbox of a provider: namespaces and the read-only root."""
    options = [
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        "--unshare-cgroup-try",
        *(("--disable-userns",) if disable_userns else ()),
        *("--cap-drop", "ALL", "--uid", str(JOB_UID), "--gid", str(JOB_UID), "--hostname", "job"),
        *("--clearenv", "--die-with-parent", "--new-session"),
    ]
    for folder in SYSTEM_FOLDERS:
        path = Path(folder)
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), folder]
        elif path.is_dir():
            options += ["--ro-bind", folder, folder]
    options += ["--ro-bind", str(etc), "/etc"]
    # A second line for a kernel that does not protect /proc/sys by the user namespace.
    options += ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys"]
    # /dev is a tmpfs of its own, so /dev/shm is private too.
    return [*options, "--dev", "/dev"]


def workspace_options(
    workspace: Workspace, network: Network, checkouts: Checkouts = NO_CHECKOUTS
) -> list[str]:
    """Return what one sandbox adds: its folders, its network, and the end of all writing elsewhere."""
    top = workspace.text
    return [
        *(() if network is Network.ON else ("--unshare-net",)),
        *("--bind", f"{top}/tmp", TMP),  # noqa: S108  # not that one
        *("--bind", f"{top}/home", HOME),
        *("--bind", f"{top}/job", JOB_ROOT),
        *("--ro-bind", f"{top}/job/ci", f"{JOB_ROOT}/ci"),
        # What is no mount itself could be renamed, and another put in its place.
        *_bound("--bind", workspace, checkouts.ancestors()),
        *_bound("--ro-bind", workspace, checkouts.read_only()),
        *("--remount-ro", "/"),
    ]


def _bound(option: str, workspace: Workspace, paths: Sequence[str]) -> list[str]:
    return [
        word for path in paths for word in (option, f"{workspace.job}/{path}", f"{JOB_ROOT}/{path}")
    ]


def command_options(env: Mapping[str, str], cwd: str) -> list[str]:
    """Return what one command adds."""
    options = ["--chdir", cwd]
    for name, value in env.items():
        options += ["--setenv", name, value]
    return options
