"""A sandbox in memory: a real backend for tests of everything above the port.

It runs nothing. Each command does what its environment says:

* ``SCRIPT_OUTPUT``: text to print first, as UTF-8.
* ``SCRIPT_OUTPUT_REPEAT``: how often to print it; 1 if absent.
* ``SCRIPT_OUTPUT_PAUSE_S``: seconds between the repetitions, as a float; 0 if absent.
* ``SCRIPT_CLOSE_OUTPUT``: if set, the output ends then, and the command goes on.
* ``SCRIPT_SLEEP_S``: seconds to run after that, as a float.
* ``SCRIPT_EXIT_CODE``: what to end with; 0 if absent.
* ``SCRIPT_SIGNAL``: number of the signal to die by instead.
* ``SCRIPT_IGNORE_TERM``: if set, only KILL ends it.
* ``SCRIPT_TERM_OUTPUT``, ``SCRIPT_TERM_EXIT_CODE``: what a TERM trap prints and exits with.
* ``SCRIPT_START_FAIL``: message of the ``CommandNotStartedError`` that ``wait`` raises.
* ``SCRIPT_BROKEN``: message of the ``SandboxBrokenError`` that ``exec`` raises.
* ``SCRIPT_DESTROY_FAIL``: message of the ``SandboxBrokenError`` that the sandbox's first ``destroy`` raises.
* ``SCRIPT_DESTROY_S``: how long the sandbox's first ``destroy`` takes.
* ``SCRIPT_WRITE``: ``path=content`` of a file to leave below the job root.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path, PurePosixPath

from sandbox.base import (
    Capabilities,
    Command,
    ExecRequest,
    ExecResult,
    LiveProcess,
    SandboxInfo,
    SandboxRequest,
    Tier,
)
from sandbox.collection import Taker
from sandbox.ended_command import EndedCommand
from sandbox.env import JOB_ROOT, base_env, command_env
from sandbox.errors import (
    CommandNotStartedError,
    SandboxBrokenError,
    SandboxUnavailableError,
    TransferRefusedError,
)
from sandbox.job_path import path_parts
from sandbox.process import exit_code_of

KIND = "scripted"
_KILL = 9
_TERM = 15
_PIECE_BYTES = 256 << 10
_BUFFERED_PIECES = 4

logger = logging.getLogger(__name__)


class ScriptedCommand:
    """One command that only pretends."""

    def __init__(self, request: ExecRequest) -> None:
        self._script = request.env
        self._request = request
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_BUFFERED_PIECES)
        self._signals: asyncio.Queue[int] = asyncio.Queue()
        self._flags: set[str] = set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield what the script prints."""
        while (piece := await self._pieces.get()) is not None:
            self._room.release()
            yield piece

    async def wait(self) -> ExecResult:
        """Wait for the scripted end."""
        return await asyncio.shield(self._task)

    async def stop(self, grace_s: float) -> None:
        """Deliver TERM, wait, then KILL."""
        self._signals.put_nowait(_TERM)
        done, _ = await asyncio.wait({self._task}, timeout=grace_s)
        if not done:
            await self.kill()

    async def kill(self) -> None:
        """Deliver KILL and wait for the end."""
        self._signals.put_nowait(_KILL)
        await asyncio.wait({self._task})

    async def processes(self) -> list[LiveProcess]:
        """Pretend that there is one process until the end."""
        if self._task.done():
            return []
        command = " ".join(self._request.argv)
        return [
            LiveProcess(pid=1, parent_pid=0, command=command, state="S", cpu_s=0.0, start_s=0.0)
        ]

    async def _run(self) -> ExecResult:
        act = asyncio.ensure_future(self._act())
        died = asyncio.ensure_future(self._death())
        try:
            await asyncio.wait({act, died}, return_when=asyncio.FIRST_COMPLETED)
            status = died.result() if died.done() else act.result()
        finally:
            act.cancel()
            died.cancel()
            self._pieces.put_nowait(None)
        code, number = exit_code_of(status)
        return ExecResult(
            exit_code=code,
            signal=number,
            timed_out="timed_out" in self._flags,
            idle_timed_out="idle_timed_out" in self._flags,
            stopped="stopped" in self._flags,
        )

    async def _act(self) -> int:
        text = self._script.get("SCRIPT_OUTPUT", "").encode()
        pause_s = float(self._script.get("SCRIPT_OUTPUT_PAUSE_S", "0"))
        for _ in range(int(self._script.get("SCRIPT_OUTPUT_REPEAT", "1"))):
            for start in range(0, len(text), _PIECE_BYTES):
                await self._print(text[start : start + _PIECE_BYTES])
            if pause_s:
                await asyncio.sleep(pause_s)
        if "SCRIPT_CLOSE_OUTPUT" in self._script:
            self._pieces.put_nowait(None)
        await asyncio.sleep(float(self._script.get("SCRIPT_SLEEP_S", "0")))
        number = int(self._script.get("SCRIPT_SIGNAL", "0"))
        return -number if number else int(self._script.get("SCRIPT_EXIT_CODE", "0"))

    async def _death(self) -> int:
        """Return the status of a death by a bound or a signal; never return without one."""
        bounds = asyncio.ensure_future(self._bounds())
        try:
            while True:
                number = await self._signals.get()
                if not self._flags:  # neither a bound, which signals as well, nor an earlier stop
                    self._flags.add("stopped")
                if number == _KILL:
                    return -_KILL
                if "SCRIPT_IGNORE_TERM" not in self._script:
                    return await self._on_term()
        finally:
            bounds.cancel()

    async def _on_term(self) -> int:
        if "SCRIPT_TERM_OUTPUT" in self._script:
            await self._print(self._script["SCRIPT_TERM_OUTPUT"].encode())
        code = self._script.get("SCRIPT_TERM_EXIT_CODE")
        return -_TERM if code is None else int(code)

    async def _bounds(self) -> None:
        """Deliver TERM, then KILL, when the first bound of the request is hit."""
        bounds = {
            "timed_out": self._request.timeout_s,
            "idle_timed_out": self._request.idle_timeout_s,
        }
        reached = [(limit, flag) for flag, limit in bounds.items() if limit is not None]
        if not reached:
            return
        limit, flag = min(reached)
        await asyncio.sleep(limit)
        if self._flags:
            return
        self._flags.add(flag)
        self._signals.put_nowait(_TERM)
        await asyncio.sleep(self._request.grace_s)
        self._signals.put_nowait(_KILL)

    async def _print(self, piece: bytes) -> None:
        await self._room.acquire()
        self._pieces.put_nowait(piece)


class ScriptedSandbox:
    """A place in memory with files and scripted commands."""

    def __init__(
        self, request: SandboxRequest, owner_label: str, on_destroyed: Callable[[str], None]
    ) -> None:
        self._name = request.name
        self._on_destroyed = on_destroyed
        self._command: ScriptedCommand | None = None
        self._destroyed = False
        self._destroy_failure: str | None = None
        self._destroy_s = 0.0
        self.files: dict[str, bytes] = {}
        """Files below the job root, by relative path; tests may read and write it."""
        self.requests: list[ExecRequest] = []
        """Every command that was asked for, in order."""
        self._base_env = base_env(
            name=request.name,
            owner=owner_label,
            job_root=JOB_ROOT,
            home="/home/job",
            tmp="/tmp",  # noqa: S108  # only a name here
        )

    @property
    def info(self) -> SandboxInfo:
        """Claim the strongest tier, so that no job refuses it."""
        return SandboxInfo(kind=KIND, tier=Tier.BWRAP)

    @property
    def job_root(self) -> str:
        """Return ``/job``."""
        return JOB_ROOT

    @property
    def base_env(self) -> Mapping[str, str]:
        """Return the variables that every command has."""
        return self._base_env

    def inside(self, path: str) -> str:
        """Return the path unchanged."""
        return path

    async def upload(
        self, source: Path, target: str, left_out: frozenset[str] = frozenset()
    ) -> None:
        """Read the regular files of a host folder into memory."""
        self._refuse_destroyed()
        # Not on a thread, which would go on after a cancellation.
        self._read_tree(source, PurePosixPath(*path_parts(target)), left_out)

    async def download(self, path: str, limit_bytes: int) -> bytes:
        """Return a file from memory."""
        content = self.files.get(str(PurePosixPath(*path_parts(path))))
        if content is None:
            raise FileNotFoundError(path)
        if len(content) > limit_bytes:
            raise TransferRefusedError(f"{path!r} is larger than {limit_bytes} bytes")
        return content

    async def collect(self, path: str, taker: Taker) -> None:
        """Offer the files in memory."""
        self._refuse_destroyed()
        base = PurePosixPath(*path_parts(path))
        for file in sorted(map(PurePosixPath, self.files)):
            if file.is_relative_to(base) and taker.wants(name := str(file.relative_to(base))):
                content = self.files[str(file)]
                taker.take(name, 0o644, len(content), io.BytesIO(content).read)

    async def exec(self, request: ExecRequest) -> Command:
        """Start a scripted command."""
        self._refuse_destroyed()
        self.requests.append(request)
        self._destroy_failure = request.env.get("SCRIPT_DESTROY_FAIL", self._destroy_failure)
        self._destroy_s = float(request.env.get("SCRIPT_DESTROY_S", self._destroy_s))
        if "SCRIPT_BROKEN" in request.env:
            raise SandboxBrokenError(request.env["SCRIPT_BROKEN"])
        if "SCRIPT_START_FAIL" in request.env:
            return EndedCommand(CommandNotStartedError(request.env["SCRIPT_START_FAIL"]))
        try:
            request.check()
            command_env(self._base_env, request.env)
        except ValueError as error:
            return EndedCommand(CommandNotStartedError(str(error)))
        if "SCRIPT_WRITE" in request.env:
            path, _, content = request.env["SCRIPT_WRITE"].partition("=")
            self.files[path] = content.encode()
        self._command = ScriptedCommand(request)
        return self._command

    async def destroy(self) -> None:
        """End what runs and forget the files."""
        self._destroyed = True
        if self._command is not None:
            await self._command.kill()
        pause_s, self._destroy_s = self._destroy_s, 0.0
        await asyncio.sleep(pause_s)
        failure, self._destroy_failure = self._destroy_failure, None
        if failure is not None:
            raise SandboxBrokenError(failure)
        self.files.clear()
        self._on_destroyed(self._name)

    def _refuse_destroyed(self) -> None:
        if self._destroyed:
            raise SandboxBrokenError(f"the sandbox {self._name} was destroyed")

    def _read_tree(self, source: Path, target: PurePosixPath, left_out: frozenset[str]) -> None:
        if not source.is_dir():
            raise TransferRefusedError(f"{source} is no folder")
        for path in sorted(source.rglob("*")):
            inner = path.relative_to(source)
            if any(str(part) in left_out for part in (inner, *inner.parents)):
                continue
            if path.is_file() and not path.is_symlink():
                self.files[str(target / inner)] = path.read_bytes()
            elif not path.is_dir() and not path.is_symlink():
                raise TransferRefusedError(f"{path} is a device, socket or FIFO")


class ScriptedProvider:
    """Makes sandboxes in memory."""

    kind = KIND

    def __init__(self, *, owner_label: str = "scripted", fail_create: str | None = None) -> None:
        """Make a provider.

        Args:
            owner_label: Goes into the environment of commands.
            fail_create: Message of the ``SandboxUnavailableError`` that every ``create`` raises.
        """
        self._owner_label = owner_label
        self._fail_create = fail_create
        self.live: dict[str, ScriptedSandbox] = {}
        """Sandboxes that were not destroyed, by name."""

    async def probe(self) -> Capabilities:
        """Claim everything."""
        return Capabilities(kind=KIND, tier=Tier.BWRAP)

    async def create(self, request: SandboxRequest) -> ScriptedSandbox:
        """Make a sandbox."""
        if self._fail_create is not None:
            raise SandboxUnavailableError(self._fail_create)
        if request.name in self.live:
            raise SandboxBrokenError(f"a sandbox named {request.name} exists")
        sandbox = ScriptedSandbox(request, self._owner_label, self._forget)
        self.live[request.name] = sandbox
        return sandbox

    async def reap(self) -> list[str]:
        """Find nothing: memory does not outlive a process."""
        return []

    async def close(self) -> None:
        """Destroy what is left."""
        for name, sandbox in list(self.live.items()):
            try:
                await sandbox.destroy()
            except SandboxBrokenError as error:
                logger.warning(
                    "A sandbox could not be removed",
                    extra={"action": "sandbox_not_removed", "sandbox": name, "error": str(error)},
                )

    def _forget(self, name: str) -> None:
        self.live.pop(name, None)
