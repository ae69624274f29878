"""One run of a daemon, from its launch document to its end.

Puts the supervisor, the logs, the control socket and the files of the state directory together.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Mapping
from typing import Any

from daemon import VERSION, logs
from daemon.clock import SystemClock
from daemon.errors import InvalidConfigError, UsageError
from daemon.local.first_spawn import CALLED_OFF_BY, handover_payload
from daemon.local.launch import exec_daemon, hand_over, open_log, state_of
from daemon.local.pending_daemon import spawn_pending
from daemon.local.progress import Progress
from daemon.local.secret_desk import SecretDesk
from daemon.local.service_manager import notify
from daemon.local.session_files import SessionFiles, adopt_spools, retired_workspaces
from daemon.local.state_watch import await_loss
from daemon.supervisor.control import ControlConnection, ControlServer
from daemon.supervisor.process import (
    ChildFailedError,
    ManagedProcess,
    ProcessSpec,
    memory_bytes,
    rfc3339,
)
from daemon.supervisor.spawning import SpawnedChild
from daemon.supervisor.stop_ladder import Urgency
from daemon.supervisor.supervisor import Supervisor
from sandbox.masking.masker import Masker

logger = logging.getLogger(__name__)

STORE_KEY_BYTES = 32
"""What of the key of the store is secret; the digest of the header for which it was made follows."""


class Session:
    """A daemon that runs. Made and run once per process."""

    def __init__(
        self,
        document: dict[str, Any],
        early: Mapping[str, SpawnedChild],
        *,
        nonce: str,
        life_fd: int,
        spared: frozenset[int] = frozenset(),
    ) -> None:
        self._document = document
        self._early = early
        self._life_fd = life_fd
        # Children that are nobody's leftovers: those from before we were a daemon, and the readers of the store.
        self._spared = set(spared)
        self._state = state_of(document)
        self._files = SessionFiles(self._state, document, nonce)
        self._progress = Progress(document["progress_fd"])
        self._start_us = SystemClock().now_us()
        self._phase = "starting"
        self._lost = False
        self._drain_timeout_s = float(document["drain_timeout_s"])
        self._signals = 0
        self._listeners: list[ControlConnection] = []
        self._successor: tuple[dict[str, Any], ControlConnection] | None = None
        self._successor_fd = -1
        self._masker = Masker()
        self._sinks: list[logs.LogSink] = []
        self._desk = SecretDesk(document.get("store") or {}, self._spared, self._masker.add)

    async def run(self) -> int:
        """Start everything, wait for the word to stop, stop everything; return the exit code."""
        self._stop_wanted, self._finished = asyncio.Event(), asyncio.Event()
        self._configure_logs()
        self._catch_signals()
        operations = {"status": self._status, "stop": self._stop, "restart": self._restart}
        control = ControlServer(
            self._state.control_socket, operations, str(self._document["token"])
        )
        self._supervisor = Supervisor(self._processes(), self._early, spared=self._spared)
        self._supervisor.adopt()
        failure = await self._start(control)
        gc.freeze()
        gc.enable()
        if failure is None:
            await self._stay()
        else:
            self._supervisor.hurry(Urgency.CANCEL)
        self._phase = "stopping"
        notify(self._document.get("notify_socket", ""), "STOPPING=1")
        survivors = await self._supervisor.stop(self._drain_timeout_s, self._tell)
        await self._desk.close()
        await self._finish(control, failure, survivors)
        return 1 if failure or survivors else 0

    async def _stay(self) -> None:
        """Wait for the word to stop, or for the state directory to go from under us."""
        token, lock_fd = str(self._document["token"]), self._document["lock_fd"]
        watch = await_loss(self._state, token, lock_fd, self._agent_runners())
        lost = asyncio.ensure_future(watch)
        wanted = asyncio.ensure_future(self._stop_wanted.wait())
        try:
            await asyncio.wait((lost, wanted), return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                self._lost = True
                facts = {"action": "state_dir_lost", "state_dir": str(self._state.root)}
                logger.error("The state directory was removed or replaced; stopping", extra=facts)
                self._supervisor.hurry(Urgency.CANCEL)
        finally:
            lost.cancel()
            wanted.cancel()

    def succeed(self) -> None:
        """Hand over to a successor if a restart was asked for; called last, after ``run``."""
        if self._successor is None:
            return
        from daemon.config import environ  # noqa: PLC0415 - a first start does without

        lock_fd, progress_fd = self._document["lock_fd"], self._successor_fd
        document = self._successor[0] | {"progress_fd": progress_fd}
        try:
            if document.get("foreground"):
                exec_daemon(environ(), document, lock_fd, progress_fd)
            log_fd = open_log(self._state)
            with spawn_pending(environ(), output=log_fd) as successor:
                hand_over(
                    successor, self._state, document, lock_fd=lock_fd, progress_fd=progress_fd
                )
        except OSError as error:
            text = f"daemon: its successor cannot be started: {error}"
            Progress(progress_fd).send({"failed": text, "process": "daemon", "log_tail": ""})

    async def _start(self, control: ControlServer) -> dict[str, Any] | None:
        """Return None when all runs or the start was called off, else the failure's line."""
        try:
            self._files.open()
            await self._take_over()
            await control.open()
            self._progress.send({"process": "daemon", "pid": os.getpid(), "state": "ready"})
            start = asyncio.ensure_future(self._supervisor.start(self._child_ready))
            stop = asyncio.ensure_future(self._stop_wanted.wait())
            try:
                await asyncio.wait((start, stop), return_when=asyncio.FIRST_COMPLETED)
                if not start.done():
                    return {
                        "failed": "the start was called off",
                        "process": "daemon",
                        "log_tail": "",
                    }
                start.result()
            finally:
                start.cancel()
                stop.cancel()
        except ChildFailedError as error:
            facts = {"action": "start_failed", "why": str(error)}
            logger.error("A process did not start", extra=facts)  # noqa: TRY400 - no bug, no traceback
            return {"failed": str(error), "process": error.process, "log_tail": error.log_tail}
        except OSError as error:
            logger.exception("The daemon cannot start", extra={"action": "start_failed"})
            where = error.filename or self._state.root
            text = f"daemon: {where}: {error.strerror or error}"
            return {"failed": text, "process": "daemon", "log_tail": ""}
        self._phase = "running"
        self._progress.send({"started": True})
        self._progress.close()
        notify(self._document.get("notify_socket", ""), "READY=1")
        logger.info("The daemon is ready", extra={"action": "daemon_ready"})
        return None

    async def _take_over(self) -> None:
        """End what agent-runners have left that are not to run any more, and keep what they did not deliver."""
        retired = retired_workspaces(self._state, self._agent_runners())
        if retired:
            from daemon.local.retirement import retire  # noqa: PLC0415 - most starts do without

            await retire(self._state, retired, self._agent_runner_env())
        adopt_spools(self._state, self._agent_runners())

    async def _finish(
        self, control: ControlServer, failure: dict[str, Any] | None, survivors: list[str]
    ) -> None:
        """Remove the files, then say the last word to everybody who waits for it."""
        if survivors:
            logger.error(
                "Processes survived",
                extra={"action": "stop_failed", "survivors": "; ".join(survivors)},
            )
            self._successor = None
        if not self._lost:  # else they are somebody else's, if there are any
            self._files.close()
        last = {"stopped": not survivors, "survivors": survivors}
        for listener in self._listeners:
            if self._successor is None or listener is not self._successor[1]:
                listener.send(last)
        logger.info("The daemon ends", extra={"action": "daemon_ended"})
        self._progress.send(failure or last)
        self._progress.close()
        if self._document.get("foreground") and failure is not None:
            os.write(2, f"runner: {failure['failed']}\n".encode())
        if self._successor is not None:
            self._successor_fd = self._successor[1].detach()
        self._finished.set()
        await control.close()
        if self._successor is None:
            with contextlib.suppress(OSError):  # a socket that somebody else put there
                self._state.runtime.rmdir()
        for sink in self._sinks:
            sink.close()

    def _configure_logs(self) -> None:
        names = {"token": self._document["token"], **self._document["secrets"]}
        store_key = (self._document.get("store") or {}).get("key")
        if store_key:
            names["the key of the secret store"] = store_key
        ignored = [name for name, value in names.items() if not self._masker.add(name, value)]
        logs.configure(self._sink("daemon"))
        for name in ignored:
            logger.warning(
                "A secret is too short or too common to be masked",
                extra={"action": "secret_not_masked", "secret": name},
            )

    def _sink(self, process: str) -> logs.LogSink:
        echo_fd = 2 if self._document.get("foreground") else -1
        sink = logs.LogSink(self._state.log_file(process), self._masker, echo_fd=echo_fd)
        self._sinks.append(sink)
        return sink

    def _processes(self) -> list[ManagedProcess]:
        processes = []
        for child in self._document["children"]:
            spec = ProcessSpec(
                name=child["name"],
                argv=tuple(child["argv"]),
                env=child["env"],
                payload=handover_payload(child, self._document),
                pid_file=self._state.pid_file(child["name"]),
                grace_s=float(child["grace_s"]),
                drains=bool(child.get("drains")),
                leaves_orphans=bool(child.get("leaves_orphans")),
                asks=bool(child.get("gets_secrets")),
            )
            fds = (self._life_fd, self._document["lock_fd"])
            sink = self._sink(spec.name)
            processes.append(ManagedProcess(spec, sink, fds, on_questions=self._desk.serve))
        return processes

    def _agent_runner_env(self) -> dict[str, str]:
        """Return the environment of an agent-runner."""
        children = self._document["children"]
        return next(dict(each["env"]) for each in children if each.get("leaves_orphans"))

    def _agent_runners(self) -> int:
        names = [str(child["name"]) for child in self._document["children"]]
        return max(1, sum(name.startswith("agent-runner") for name in names))

    def _child_ready(self, line: dict[str, Any]) -> None:
        if line["process"] == "job-server":
            self._files.server_ready(line)
        self._progress.send(line)

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in CALLED_OFF_BY:
            loop.add_signal_handler(number, self._signalled)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CALLED_OFF_BY)
        # A handler, not SIG_IGN: the children and their jobs would inherit that over exec.
        loop.add_signal_handler(signal.SIGHUP, logger.debug, "A hangup is ignored")

    def _signalled(self) -> None:
        """The first signal drains, the second cancels, the third kills."""
        self._ask_to_stop(Urgency(min(self._signals, Urgency.KILL)))
        self._signals += 1

    def _ask_to_stop(self, urgency: Urgency) -> None:
        self._supervisor.hurry(urgency)
        self._stop_wanted.set()

    def _tell(self, line: dict[str, Any]) -> None:
        for listener in self._listeners:
            listener.send(line)

    async def _status(self, _request: dict[str, Any], connection: ControlConnection) -> None:
        me: dict[str, Any] = {
            "pid": os.getpid(),
            "state": {"starting": "STARTING", "stopping": "STOPPING"}.get(self._phase, "RUNNING"),
            "start_time": rfc3339(self._start_us),
            "restarts": 0,
            "last_exit": None,
            "memory_bytes": memory_bytes(os.getpid()),
        }
        connection.send(
            {
                "mode": self._document["mode"],
                "endpoints": self._files.endpoints,
                "processes": {"daemon": me, **self._supervisor.status()},
                "version": VERSION,
                "phase": self._phase,
                "secret_store": self._store_status(),
            }
        )

    def _store_status(self) -> dict[str, Any]:
        """Return what a restart has to know of the store; nothing of it is secret."""
        store = self._document.get("store") or {}
        key = bytes.fromhex(store.get("key") or "")
        header = key[STORE_KEY_BYTES:].hex()
        return {"path": store.get("path") or None, "unlocked": bool(key), "header": header}

    async def _stop(self, request: dict[str, Any], connection: ControlConnection) -> None:
        drain_timeout_s = request.get("drain_timeout_s")
        if isinstance(drain_timeout_s, int | float) and self._phase != "stopping":
            self._drain_timeout_s = float(drain_timeout_s)
        self._listeners.append(connection)
        self._ask_to_stop(Urgency.CANCEL if request.get("now") is True else Urgency.DRAIN)
        await self._finished.wait()

    async def _restart(self, request: dict[str, Any], connection: ControlConnection) -> None:
        from daemon.local.renewal import renewed  # noqa: PLC0415 - a first start does without

        problem, document = f"the daemon is {self._phase}", None
        if self._phase == "running":
            try:
                document = renewed(self._state, self._document, request)
            except (UsageError, InvalidConfigError) as error:
                problem = str(error)
        if document is None:
            connection.send({"failed": problem, "process": "daemon", "log_tail": ""})
            return
        self._successor = (document, connection)
        await self._stop(request, connection)
