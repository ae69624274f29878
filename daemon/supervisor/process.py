"""One supervised child: how it is started, what it says, how it ends."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import Any

from daemon.clock import Clock, SystemClock
from daemon.errors import StartFailedError
from daemon.logs import LogSink
from daemon.supervisor import pid_files
from daemon.supervisor.child_watch import ChildWatch
from daemon.supervisor.pid_files import ProcessIdentity
from daemon.supervisor.spawning import SpawnedChild, spawn
from daemon.supervisor.states import ProcessState, move

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """What the supervisor must know to run one child."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)
    """Handed over at every start; holds the token and the secrets."""
    pid_file: Path
    grace_s: float = 10.0
    """Seconds between the last TERM and KILL."""
    drains: bool = False
    """A first TERM lets it finish its work, a second one cancels the work."""
    leaves_orphans: bool = False
    """Runs commands of other people, which may outlive it."""
    asks: bool = False
    """Gets a socket to ask for secrets, anew at every start."""

    def payload_bytes(self) -> bytes:
        """Return what is handed over."""
        return json.dumps(dict(self.payload)).encode()


class ChildFailedError(StartFailedError):
    """A child did not become ready; carries its name and the tail of its log."""

    def __init__(self, process: str, problem: str, log_tail: str) -> None:
        super().__init__(f"{process}: {problem}")
        self.process = process
        self.log_tail = log_tail


class ManagedProcess:
    """A child and its state. Made once per child; ``start`` and the child's end may alternate for ever.

    Used by the event loop only. After ``start`` the caller watches ``ready`` and gets ``on_exit``.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        log: LogSink,
        fds: tuple[int, int],
        clock: Clock | None = None,
        on_questions: Callable[[socket], None] | None = None,
    ) -> None:
        """Take the child's end of the life pipe and the lock as ``fds``, and who serves a child that asks."""
        self.spec = spec
        self.log = log
        self.state = ProcessState.STOPPED
        self.ready: asyncio.Future[dict[str, Any]] | None = None
        self.exited: asyncio.Future[None] | None = None
        self.restarts = 0
        self.last_exit: str | None = None
        self.reason: str | None = None
        """Why it is FATAL."""
        self._fds = fds
        self._clock = clock or SystemClock()
        self._on_questions = on_questions
        self._child: SpawnedChild | None = None
        self._identity: ProcessIdentity | None = None
        self._start_us = 0
        self._start_s = 0.0
        self._watch: ChildWatch | None = None
        self._on_exit: Callable[[ManagedProcess], None] | None = None

    @property
    def pid(self) -> int | None:
        """Return the pid of the living child."""
        return self._child.pid if self._child else None

    def start(
        self, on_exit: Callable[[ManagedProcess], None], child: SpawnedChild | None = None
    ) -> None:
        """Spawn the child, or adopt one that was spawned before the event loop ran.

        Raises:
            OSError: The command cannot be started; the state has not changed.
        """
        loop = asyncio.get_running_loop()
        spec = self.spec
        if child is None:
            life_fd, lock_fd = self._fds
            child = spawn([*spec.argv], spec.env, life_fd, asks=spec.asks)
            child.hand_over(spec.payload_bytes(), lock_fd)
        self.state = move(self.state, ProcessState.STARTING)
        self.reason = None
        self._child, self._on_exit = child, on_exit
        self._start_us, self._start_s = self._clock.now_us(), loop.time()
        self.ready, self.exited = loop.create_future(), loop.create_future()
        # Read it, or asyncio complains of a failure that nobody awaits; the child's end tells it too.
        self.ready.add_done_callback(lambda _: self.problem)
        self.log.forget_recent()
        self._watch = ChildWatch(child, self.log, self._hear, self._end)
        if child.questions is not None and self._on_questions is not None:
            self._on_questions(child.questions)
        self._identity = pid_files.identify(child.pid, child.nonce)
        self._write_pid_file()
        logger.info(
            "A process was started",
            extra={"action": "process_started", "child": spec.name, "child_pid": child.pid},
        )

    def _write_pid_file(self) -> None:
        """A process without its file still works, so that a full disk stops no restart."""
        if self._identity is None:
            return
        try:
            pid_files.write(self.spec.pid_file, self._identity)
        except OSError:
            logger.exception(
                "A PID file cannot be written",
                extra={"action": "pid_file_failed", "child": self.spec.name},
            )

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the child; one that has ended is left alone."""
        if self._watch is not None:
            try:
                signal.pidfd_send_signal(self._watch.pidfd, number)
            except ProcessLookupError:
                return

    def kill(self) -> None:
        """Kill the child and its process group; an unreaped child's pid is nobody else's."""
        self.send_signal(signal.SIGKILL)
        if self._child is not None:
            try:
                os.killpg(self._child.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                return

    def fail(self, problem: str) -> None:
        """Give up this start: a child that is alive but not ready is killed."""
        if self.ready is not None and not self.ready.done():
            self.ready.set_exception(StartFailedError(problem))
        self.kill()

    @property
    def problem(self) -> str | None:
        """Return why the last start failed, or how the child ended since; None while all is well."""
        if self.ready is not None and self.ready.done() and not self.ready.cancelled():
            error = self.ready.exception()
            if error is not None:
                return str(error)
        if self.exited is not None and self.exited.done():
            return f"it ended ({self.last_exit})"
        return None

    def signal_pending(self, number: signal.Signals) -> bool:
        """Tell whether a signal waits to be taken; a second one of its kind would be lost until then."""
        try:
            text = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return False
        masks = [line.split()[1] for line in text.splitlines() if line.startswith(("SigP", "ShdP"))]
        return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)

    def up_s(self) -> float:
        """Return the seconds since the last start."""
        return asyncio.get_running_loop().time() - self._start_s

    def describe(self) -> dict[str, Any]:
        """Return the entry of ``status`` (DESIGN §11)."""
        entry: dict[str, Any] = {
            "pid": self.pid,
            "state": self.state.value,
            "start_time": rfc3339(self._start_us) if self._child else None,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
            "memory_bytes": memory_bytes(self.pid) if self.pid else None,
        }
        if self.state is ProcessState.FATAL:
            entry["reason"] = self.reason
            entry["log_tail"] = self.log.tail(20)
        return entry

    def _hear(self, line: bytes) -> None:
        if self.ready is None or self.ready.done():
            return
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        facts = answer.get("ready") if isinstance(answer, dict) else None
        if isinstance(facts, dict):
            if self.state is ProcessState.STARTING:
                self.state = move(self.state, ProcessState.RUNNING)
            self.ready.set_result(facts)
            return
        problem = answer.get("error") if isinstance(answer, dict) else None
        self.ready.set_exception(StartFailedError(str(problem or "its ready line is malformed")))

    def _end(self, returncode: int) -> None:
        pid, self.last_exit = self.pid, exit_text(returncode)
        pid_files.remove(self.spec.pid_file, self._identity)
        self._watch = self._child = self._identity = None
        stopping = self.state is ProcessState.STOPPING
        self.state = move(self.state, ProcessState.STOPPED if stopping else ProcessState.EXITED)
        logger.log(
            logging.INFO if stopping else logging.WARNING,
            "A process has ended",
            extra={
                "action": "process_ended",
                "child": self.spec.name,
                "child_pid": pid,
                "last_exit": self.last_exit,
            },
        )
        if self.ready is not None and not self.ready.done():
            self.ready.set_exception(StartFailedError(f"it ended at start ({self.last_exit})"))
        if self.exited is not None:
            self.exited.set_result(None)
        if self._on_exit is not None:
            self._on_exit(self)


def exit_text(returncode: int | None) -> str:
    """Return how a process ended, for people: ``exit code 1`` or ``signal 9 (SIGKILL)``."""
    if returncode is not None and returncode < 0:
        try:
            return f"signal {-returncode} ({signal.Signals(-returncode).name})"
        except ValueError:
            return f"signal {-returncode}"
    return f"exit code {returncode}"


def memory_bytes(pid: int) -> int | None:
    """Return the resident memory of a process; from statm, which is readable for a non-dumpable one too."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return None


def rfc3339(time_us: int) -> str:
    """Return a wall-clock time in UTC as RFC 3339 has it."""
    import time  # noqa: PLC0415 - only status asks

    seconds, micros = divmod(time_us, 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{micros // 1000:03d}Z"
