"""What is looked at before and after a command because of what it may leave behind."""

from __future__ import annotations

import os

from sandbox.filesystem.checkouts import NO_CHECKOUTS, Checkouts, find_checkouts, planted
from sandbox.filesystem.privileged_bits import take_privileged_bits
from sandbox.filesystem.settled import in_thread
from sandbox.filesystem.workspace import Workspace
from sandbox.filesystem.workspace_pool import WorkspacePool


class Aftermath:
    """The checkouts of a workspace at the start of one command, and what to do once its last process is dead."""

    def __init__(self, workspace: Workspace, checkouts: Checkouts, pool: WorkspacePool) -> None:
        """Remember; see ``look``."""
        self._workspace = workspace
        self.checkouts = checkouts
        self._pool = pool

    async def settle(self, *, verified_dead: bool) -> tuple[str, ...]:
        """Take privileged bits off what is left; return what is new in the checkouts. Free for an untouched workspace.

        Args:
            verified_dead: Whether it is certain that nothing of the command lives.
        """
        if verified_dead and self._pool.is_untouched(self._workspace):
            return ()
        if self._workspace.is_empty():
            return ()
        return await in_thread(self._settle)

    def _settle(self) -> tuple[str, ...]:
        for folder in (self._workspace.job, self._workspace.home, self._workspace.tmp):
            take_privileged_bits(folder)
        return planted(self._workspace.job, self.checkouts)


async def look(
    workspace: Workspace, pool: WorkspacePool, *, looks_for_checkouts: bool
) -> Aftermath:
    """Look at a workspace before a command. Free where nothing can be in it.

    Args:
        workspace: Nobody changes it meanwhile.
        pool: Knows whether it is as it was made; asked once nothing lives that could change it.
        looks_for_checkouts: Whether there are any to protect that something can have put there.
    """
    checkouts = NO_CHECKOUTS
    if looks_for_checkouts and _holds_something(workspace):
        checkouts = await in_thread(lambda: find_checkouts(workspace.job))
    return Aftermath(workspace, checkouts, pool)


def _holds_something(workspace: Workspace) -> bool:
    # Beside src there is only ci.
    top = f"{workspace.text}/job"
    try:
        return bool(os.listdir(f"{top}/src")) or len(os.listdir(top)) != 2  # noqa: PTH208, PLR2004
    except OSError:
        return True
