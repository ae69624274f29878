"""The process of the job server: ``python -P -m daemon.server --instance NONCE``, started by the daemon.

The argument only marks the process for people and for the daemon's checks; everything that matters comes with the handover:
the token, and the variables of ``ServerConfig``, which beat those of the environment. It may come late: the process was
spawned ahead then. ``daemon.foreground`` runs the same without a daemon: ``run``.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # a tenth of the imports, which make no garbage; see _serve

import agent_runner.plain_asyncio  # noqa: F401 - before whatever imports asyncio

# isort: split
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from agent_runner import process_logs
from agent_runner.errors import AgentRunnerError
from agent_runner.handover import Handover, has_come, receive
from agent_runner.hardening import harden
from daemon.errors import DaemonError
from daemon.server.config import ServerConfig

if TYPE_CHECKING:
    from daemon.server.app import JobServer

logger = logging.getLogger(__name__)

STOP_GRACE_S = 5.0
LEAVES = 2
"""Signals that mean something; one more and the process is gone. Nothing that was answered is lost by that."""
LEFT_AT_ONCE = 1
ORPHAN_WAIT_S = 7.0
"""After the daemon's death: how long agent-runners may take to report and leave."""


def main() -> int:
    """Run one job server until the daemon tells it to stop; return the exit code."""
    harden()
    process_logs.configure("job-server")
    # A Ctrl-C in the terminal reaches every process of it; the daemon decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    env = os.environ  # noqa: TID251 - the one read of this process
    try:
        if not has_come(env):
            _load()
        handover = receive(env)
    except AgentRunnerError as error:
        print(f"job server: {error}", file=sys.stderr)  # noqa: T201 - nobody else listens
        return 1
    return run({**env, **handover.payload.get("config", {})}, handover)


def run(env: Mapping[str, str], handover: Handover) -> int:
    """Run until told to stop; return the exit code. Called once per process.

    Args:
        env: Holds the configuration.
        handover: What was handed over; is told of the readiness and of the end.
    """
    try:
        return asyncio.run(_serve(handover, ServerConfig.from_env(env)))
    except DaemonError as error:
        logger.error("cannot start", extra={"action": "start_failed", "why": str(error)})  # noqa: TRY400
        handover.failed(str(error))
        return 1


def _load() -> None:
    """Import what takes long: late, so that a bad configuration is told without it, or while there is nothing else to do."""
    import agent_runner.plain_grpc  # noqa: F401, PLC0415 - before whatever imports gRPC or protobuf

    # isort: split
    import daemon.server.app  # noqa: F401, PLC0415


async def _serve(handover: Handover, config: ServerConfig) -> int:
    _load()
    from daemon.server.app import JobServer  # noqa: PLC0415

    told = [asyncio.Event() for _ in range(LEAVES)]
    orphaned = asyncio.Event()
    _on_signals(handover, told, orphaned)
    server = JobServer(config, str(handover.payload["token"]))
    await server.start()
    gc.freeze()
    gc.enable()
    handover.ready({"listen": server.listen, "socket": str(config.socket)})
    await _first(told[0].wait(), orphaned.wait(), handover.lost())
    handover.stopping()
    lost = not told[0].is_set() and not orphaned.is_set()
    if lost:
        logger.error("the state directory is gone; stopping", extra={"action": "state_dir_lost"})
    elif not told[0].is_set():
        logger.warning("the daemon has died", extra={"action": "daemon_died"})
        await _first(told[0].wait(), server.wait_disconnected(), asyncio.sleep(ORPHAN_WAIT_S))
    stopping = asyncio.create_task(server.stop(STOP_GRACE_S))
    hurried = asyncio.create_task(_hurried(told[1], server))
    try:
        await stopping
    finally:
        hurried.cancel()
    logger.info("stopped", extra={"action": "server_stopped"})
    return 1 if lost else 0


async def _hurried(told: asyncio.Event, server: JobServer) -> None:
    await told.wait()
    await server.hurry()


def _on_signals(handover: Handover, told: list[asyncio.Event], orphaned: asyncio.Event) -> None:
    """Map signals and the daemon's death: the first one stops, the second gives calls no time, the third leaves now."""
    loop = asyncio.get_running_loop()

    def signalled() -> None:
        waiting = [event for event in told if not event.is_set()]
        if not waiting:
            os._exit(LEFT_AT_ONCE)
        waiting[0].set()

    loop.add_signal_handler(signal.SIGTERM, signalled)
    if handover.alone:
        loop.add_signal_handler(signal.SIGINT, signalled)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup(1)
            loop.add_signal_handler(signal.SIGHUP, signalled)
    else:
        loop.add_reader(handover.life_fd, _life_ended, loop, handover.life_fd, orphaned)


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
