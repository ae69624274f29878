"""Notices what somebody removes below a running installation, and mends it or says that it cannot go on."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from daemon.errors import StateDirError
from daemon.paths import StateDir, make_private_dir
from daemon.supervisor.pid_files import replace_file

LOOK_S = 2.0

logger = logging.getLogger(__name__)


async def await_loss(
    state: StateDir, token: str, lock_fd: int, agent_runners: int, look_s: float = LOOK_S
) -> None:
    """Return when the state directory is not that of this daemon any more; one task per daemon.

    The lock file tells: without it at its path another daemon could start beside this one. A token file or
    a folder that is missing while the lock is there is made again, with the same token.

    Args:
        state: What is watched.
        token: What the token file holds.
        lock_fd: The open lock file.
        agent_runners: How many there are, each with a spool.
        look_s: Seconds between two looks.
    """
    spools = [state.spool_of(number) for number in range(1, agent_runners + 1)]
    mine = os.fstat(lock_fd)
    while True:
        await asyncio.sleep(look_s)
        try:
            there = state.lock.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError:
            continue  # a file system that stutters is no loss
        if not os.path.samestat(mine, there):
            return
        _mend(state, token, spools)


def _mend(state: StateDir, token: str, spools: Sequence[Path]) -> None:
    try:
        if not os.path.lexists(state.token):
            replace_file(state.token, token.encode() + b"\n", durable=True)
            logger.warning("The token file was made again", extra={"action": "token_restored"})
        if not all(folder.is_dir() for folder in (state.job_logs, *spools)):
            state.prepare()
            for folder in spools:
                make_private_dir(folder)
            logger.warning("A folder was made again", extra={"action": "folder_restored"})
    except (OSError, StateDirError) as error:
        facts = {"action": "restore_failed", "why": str(error)}
        logger.warning("What is missing cannot be made again", extra=facts)
