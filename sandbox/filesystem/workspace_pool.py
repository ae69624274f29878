"""Makes the folders of sandboxes, and uses those again that a job has left untouched.

Six folders cost a rename each way instead of twelve changes of the disk. Used again is only what nothing
can tell from new: the same folders, with nothing in them, unchanged by every mark that a file
system keeps. Who decides that no process can still hold one of them open is the sandbox.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sandbox.filesystem.fingerprint import (
    PATHS,
    Fingerprint,
    after_move,
    fingerprint,
    is_unchanged,
)
from sandbox.filesystem.removal_queue import discard_workspace
from sandbox.filesystem.workspace import Workspace, spare_name

MAX_SPARES = 64
_JOB = ("job", "job/src")
"""Where a checkout can be before a command; ``job/ci`` is read-only."""


class _Spare(NamedTuple):
    """A workspace that no sandbox has."""

    workspace: Workspace
    """Under the name that it has then."""
    marks: Fingerprint


@dataclass(slots=True, eq=False)
class _Use:
    """A workspace that a sandbox has, and will give back."""

    marks: Fingerprint
    resting: Workspace
    """Where it is while it is no sandbox's. Nobody can guess the name, and no job sees it."""
    entered: float | None = None
    """When the first command began in it since it was made, or last looked at and found untouched."""
    untouched: bool | None = None
    """Whether it is as it was made; None if it was not looked at since its last command."""


class WorkspacePool:
    """The workspaces of one lane, all of one owner. Used on one event loop only, but for ``make_spare``."""

    def __init__(self, root: Path, job_uid: int | None) -> None:
        self._root = os.fspath(root)
        self._root_fd = -1
        self._job_uid = job_uid
        self._spares: list[_Spare] = []
        self._uses: dict[str, _Use] = {}
        """By name."""

    def obtain(self, name: str, *, returnable: bool) -> Workspace:
        """Return the workspace of a new sandbox; called once per sandbox.

        Args:
            name: The sandbox.
            returnable: Whether ``give_back`` may be called for it.

        Raises:
            OSError: The disk is full or broken, or a sandbox of this name exists.
        """
        workspace = self.workspace(name)
        spare = self._moved_spare(workspace)
        if spare is None:
            workspace.create()
        if returnable:
            self._uses[name] = (
                _Use(fingerprint(workspace), self.workspace(spare_name()))
                if spare is None
                else _Use(spare.marks, spare.workspace)
            )
        return workspace

    def named(self, workspace: Workspace, name: str) -> Workspace:
        """Give a workspace that was obtained before there was a sandbox the name of one; return it under this name.

        Raises:
            OSError: The disk is broken, or a sandbox of this name exists; the workspace is as it was.
        """
        target = self.workspace(name)
        self._rename(workspace, target)
        use = self._uses.pop(workspace.name, None)
        if use is not None:
            with contextlib.suppress(OSError):  # it is not given back then
                self._uses[name] = _Use(after_move(use.marks, target), use.resting)
        return target

    def workspace(self, name: str) -> Workspace:
        """Return where the workspace of a sandbox is, whether it exists or not."""
        return Workspace(f"{self._root}/{name}", self._job_uid)

    def give_back(self, workspace: Workspace) -> bool:
        """Keep a workspace for the next sandbox if nobody can tell it from a new one; tell whether it was kept.

        Called after the last process that could reach it was seen dead, once per sandbox.
        """
        untouched = self.is_untouched(workspace)
        use = self._uses.pop(workspace.name, None)
        if use is None or not untouched or len(self._spares) >= MAX_SPARES:
            return False
        try:
            self._rename(workspace, use.resting)
        except OSError:
            return False
        self._spares.append(_Spare(use.resting, use.marks))
        return True

    def is_untouched(self, workspace: Workspace) -> bool:
        """Tell whether nobody can tell a workspace from a new one; called after the last process that could reach it was seen dead.

        Looked at once until ``enter``.
        """
        use = self._uses.get(workspace.name)
        if use is None:
            return False
        if use.untouched is None:
            # Without a command all is looked at.
            since = -math.inf if use.entered is None else use.entered
            use.untouched = self._is_unchanged(workspace, use.marks, since)
            if use.untouched:
                use.entered = None
        return use.untouched

    def enter(self, workspace: Workspace) -> bool:
        """Note that a command is about to be in a workspace; tell whether its ``job`` is as it was made. Called before each."""
        use = self._uses.get(workspace.name)
        if use is None:
            return False
        use.untouched = None
        if use.entered is not None:
            return False
        use.entered = time.monotonic()
        return self._is_unchanged(workspace, use.marks, use.entered, _JOB)

    def make_spare(self) -> None:
        """Make the workspace of the next sandbox, if there is none. Called on a thread, once the lane is free again.

        A disk that refuses now is asked again when the sandbox comes.
        """
        if self._spares:
            return
        spare = self.workspace(spare_name())
        try:
            spare.create()
            self._spares.append(_Spare(spare, fingerprint(spare)))
        except OSError:
            discard_workspace(spare)

    def forget(self, workspace: Workspace) -> None:
        """Note that a workspace will not be given back. Idempotent."""
        self._uses.pop(workspace.name, None)

    def spares(self) -> list[str]:
        """Return the names of the folders that wait for a sandbox."""
        return [spare.workspace.name for spare in self._spares]

    def close(self) -> None:
        """Remove the spares. What cannot be removed is logged, and left to the next start. Idempotent."""
        while self._spares:
            discard_workspace(self._spares.pop().workspace)
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1

    def _opened_root(self) -> int:
        """Return the folder of all workspaces, open until ``close``: what is done for every job begins there.

        Raises:
            OSError: It is missing, or no descriptor is left.
        """
        if self._root_fd < 0:
            self._root_fd = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._root_fd

    def _rename(self, before: Workspace, after: Workspace) -> None:
        fd = self._opened_root()
        os.rename(before.name, after.name, src_dir_fd=fd, dst_dir_fd=fd)

    def _is_unchanged(
        self, workspace: Workspace, marks: Fingerprint, since: float, paths: Iterable[str] = PATHS
    ) -> bool:
        try:
            root_fd = self._opened_root()
        except OSError:
            return False
        return is_unchanged(workspace, marks, since, root_fd=root_fd, paths=paths)

    def _moved_spare(self, workspace: Workspace) -> _Spare | None:
        """Turn a spare into this workspace and return what it was; None if there is none, or the name is taken."""
        if not self._spares:
            return None
        spare = self._spares.pop()
        try:
            self._rename(spare.workspace, workspace)
        except OSError:
            discard_workspace(spare.workspace)
            return None
        try:
            return _Spare(spare.workspace, after_move(spare.marks, workspace))
        except OSError:
            discard_workspace(workspace)
            return None
