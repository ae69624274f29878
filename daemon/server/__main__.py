"""The process of the job server: ``python -P -m daemon.server --instance NONCE``, started by the daemon.

The argument only marks the process for people and for the daemon's checks; everything that matters comes through the
environment (``ServerConfig``) and the handover (the token).
"""

from __future__ import annotations

import agent_runner.plain_asyncio  # noqa: F401 - before whatever imports asyncio

# isort: split
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from agent_runner import process_logs
from agent_runner.errors import AgentRunnerError
from agent_runner.handover import Handover, receive
from agent_runner.hardening import harden
from daemon.errors import DaemonError
from daemon.server.config import ServerConfig

logger = logging.getLogger(__name__)

STOP_GRACE_S = 5.0
ORPHAN_WAIT_S = 7.0
"""After the daemon's death: how long agent-runners may take to report and leave."""


def main() -> int:
    """Run one job server until it is told to stop; return the exit code."""
    gc.disable()  # 20 ms of the imports, which make no garbage; see _serve
    harden()
    process_logs.configure("job-server")
    # A Ctrl-C in the terminal reaches every process of it; the daemon decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    env = os.environ  # noqa: TID251 - the one read of this process
    try:
        handover = receive(env)
    except AgentRunnerError as error:
        print(f"job server: {error}", file=sys.stderr)  # noqa: T201 - nobody else listens
        return 1
    try:
        return asyncio.run(_serve(handover, ServerConfig.from_env(env)))
    except DaemonError as error:
        logger.error("cannot start", extra={"action": "start_failed", "why": str(error)})  # noqa: TRY400
        handover.failed(str(error))
        return 1


async def _serve(handover: Handover, config: ServerConfig) -> int:
    # Late, so that a bad configuration is told without the time that grpc takes to import.
    from daemon.server.app import JobServer  # noqa: PLC0415

    told = asyncio.Event()
    orphaned = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    server = JobServer(config, str(handover.payload["token"]))
    await server.start()
    loop.add_reader(handover.life_fd, _life_ended, loop, handover.life_fd, orphaned)
    gc.freeze()
    gc.enable()
    handover.ready({"listen": server.listen, "socket": str(config.socket)})
    await _first(told.wait(), orphaned.wait())
    if not told.is_set():
        logger.warning("the daemon has died", extra={"action": "daemon_died"})
        await _first(told.wait(), server.wait_disconnected(), asyncio.sleep(ORPHAN_WAIT_S))
    await server.stop(STOP_GRACE_S)
    logger.info("stopped", extra={"action": "server_stopped"})
    return 0


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for whichever comes first and drop the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _life_ended(loop: asyncio.AbstractEventLoop, life_fd: int, orphaned: asyncio.Event) -> None:
    loop.remove_reader(life_fd)
    orphaned.set()


if __name__ == "__main__":
    sys.exit(main())
