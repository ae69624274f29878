"""The folders of one sandbox on the host."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sandbox.filesystem.removal import remove_tree

_PRIVATE = 0o700
_PASSABLE = 0o711
"""Lets the job's user reach its own folders below one that it cannot list."""
SPARE_PREFIX = ".spare-"
"""How the folder of a workspace begins that is no sandbox's: no sandbox can have such a name."""
FOLDERS = ("job", "job/src", "job/ci", "home", "tmp")
"""What a workspace consists of, each after the one that it is in."""
_ENTRIES = {"": 3, "job": 2}
"""How many of them a folder holds."""
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Workspace:
    """``<root>/<name>`` with ``job/src``, ``job/ci``, ``home`` and ``tmp``. Never changed."""

    __slots__ = ("job_uid", "name", "text")

    def __init__(self, path: str | os.PathLike[str], job_uid: int | None) -> None:
        """Remember where it is, whether it exists or not.

        Args:
            path: An absolute one.
            job_uid: Owner of what is inside, when this process is root's.
        """
        self.text = os.fspath(path)
        """The path as a text, for what is done for every command: to make a Path of it costs more than the call."""
        self.name = self.text.rpartition("/")[2]
        """Of the sandbox."""
        self.job_uid = job_uid

    @property
    def path(self) -> Path:
        """Return where it is."""
        return Path(self.text)

    @property
    def job(self) -> Path:
        """Return the folder that is ``/job`` inside."""
        return self.path / "job"

    @property
    def ci(self) -> Path:
        """Return the trusted folder that commands can only read."""
        return self.path / "job" / "ci"

    @property
    def home(self) -> Path:
        """Return the private home."""
        return self.path / "home"

    @property
    def tmp(self) -> Path:
        """Return the private, disk-backed temporary folder."""
        return self.path / "tmp"

    def create(self) -> Workspace:
        """Make the folders, all or none; return this workspace.

        Raises:
            FileExistsError: A sandbox of this name exists.
        """
        self.path.mkdir(mode=_PRIVATE)
        try:
            self._fill()
        except BaseException:
            with contextlib.suppress(OSError):  # the first error says more
                self.remove()
            raise
        return self

    def moved_away(self) -> Workspace:
        """Rename the folder to what is no sandbox's, and return it.

        Raises:
            OSError: It is missing, or the disk is broken.
        """
        moved = Workspace(f"{self.text[: -len(self.name)]}{spare_name()}", self.job_uid)
        os.rename(self.text, moved.text)  # noqa: PTH104  # the hot path
        return moved

    def is_empty(self) -> bool:
        """Tell whether the folders hold nothing but themselves. Follows no link."""
        opened: dict[str, int] = {}
        try:
            opened[""] = os.open(self.path, _OPEN_FOLDER)
            for path in FOLDERS:
                above, _, name = path.rpartition("/")
                opened[path] = os.open(name, _OPEN_FOLDER, dir_fd=opened[above])
            return all(
                len(os.listdir(fd)) == _ENTRIES.get(path, 0)  # noqa: PTH208  # a descriptor
                for path, fd in opened.items()
            )
        except OSError:
            return False
        finally:
            for fd in opened.values():
                os.close(fd)

    def remove_untouched(self) -> bool:
        """Remove the folders if the job left nothing in them, which is quicker than asking a thread to look.

        Follows no link: a folder that was replaced by one is left to ``remove``.
        """
        try:
            top = os.open(self.path, _OPEN_FOLDER)
        except OSError:
            return False
        try:
            job = os.open("job", _OPEN_FOLDER, dir_fd=top)
            try:
                for name in ("src", "ci"):
                    os.rmdir(name, dir_fd=job)
            finally:
                os.close(job)
            for name in ("job", "home", "tmp"):
                os.rmdir(name, dir_fd=top)
            self.path.rmdir()
        except OSError:
            return False
        finally:
            os.close(top)
        return True

    def remove(self) -> None:
        """Remove everything, whatever the job made of it. Idempotent.

        Raises:
            OSError: Something could not be removed.
        """
        root = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(root, self.path.name)
        finally:
            os.close(root)

    def _fill(self) -> None:
        if self.job_uid is not None:
            self.path.chmod(_PASSABLE)
        top = str(self.path)
        for name in FOLDERS:
            folder = f"{top}/{name}"
            os.mkdir(folder, mode=_PRIVATE)  # noqa: PTH102  # the hot path
            if self.job_uid is not None:
                os.chown(folder, self.job_uid, self.job_uid)


def spare_name() -> str:
    """Return a name that no sandbox has and nobody can guess."""
    return f"{SPARE_PREFIX}{os.urandom(8).hex()}"


def open_root(root: Path, *, passable: bool) -> None:
    """Make the folder of all workspaces: private, or passable for the job's user when root's."""
    mode = _PASSABLE if passable else _PRIVATE
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)  # whatever the umask says
    root.chmod(mode)
