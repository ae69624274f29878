"""Which folders may not become the folder of all workspaces: it is given a mode, and what is in it is removed.

Asked before anything is touched.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sandbox.errors import SandboxUnavailableError

_NEVER = (
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/libx32", "/media",
    "/mnt", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/usr", "/var",
    "/var/cache", "/var/lib", "/var/log", "/var/run", "/tmp", "/var/tmp",  # noqa: S108  # not used
)  # fmt: skip
_NEVER_BELOW = ("/boot", "/etc", "/proc", "/sys")


def check_root(root: Path) -> None:
    """Refuse a folder that is somebody else's, or holds what is no workspace. A missing one is fine.

    Raises:
        SandboxUnavailableError: It is the system's, a home or above one, a link, or in use for something else.
    """
    resolved = os.path.realpath(root)
    home = os.path.realpath(os.path.expanduser("~"))  # noqa: PTH111  # a user may have none
    if resolved in _NEVER or os.path.commonpath([resolved, home]) == resolved:
        raise _refused(root, "it is a folder of the system, or a home is in it")
    for folder in _NEVER_BELOW:
        if os.path.commonpath([resolved, folder]) == folder:
            raise _refused(root, f"it is below {folder}")
    try:
        found = os.lstat(root)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refused(root, os.strerror(error.errno or 0)) from error
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(root, "it is a link, or no folder")
    if found.st_uid != os.geteuid():
        raise _refused(root, "it belongs to another user")
    with os.scandir(root) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                raise _refused(root, f"it holds {entry.name!r}, which is no workspace")


def _refused(root: Path, reason: str) -> SandboxUnavailableError:
    return SandboxUnavailableError(f"{root} cannot be the folder of workspaces: {reason}")
