"""One case of ``tests/cases/escape.json``: what it does, and what it must not have done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from daemon.cli.terminal_filter import TerminalFilter
from sandbox import procfs
from sandbox.base import (
    Command,
    ExecRequest,
    ExecResult,
    Network,
    Sandbox,
    SandboxProvider,
    SandboxRequest,
    Tier,
)
from sandbox.errors import (
    CommandNotStartedError,
    SandboxUnavailableError,
    TransferRefusedError,
)
from sandbox.filesystem.provider import FilesystemProvider
from sandbox.filesystem.root_check import check_root
from sandbox.limits import MIB, Limits
from sandbox.masking.masker import Masker
from tests.contract.escape_decoys import Decoys

NETWORKS = {"off": Network.OFF, "on": Network.ON, "allowlist": Network.HOSTS}
DOWNLOAD_BYTES = 64 * MIB
KEPT_BYTES = MIB
MEMORY_GROWTH_BYTES = 48 * MIB
GRACE_S = 0.5


class EscapeCase:
    """A case in a sandbox of its own."""

    def __init__(self, case: Mapping[str, Any], provider: SandboxProvider, root: Path) -> None:
        self.case = case
        self.id: str = case["id"]
        self.operation: Mapping[str, Any] = case.get("op", {})
        self._provider = provider
        self._root = root
        self.output = b""
        self.problems: list[str] = []
        self._started = time.monotonic()
        """When the command had begun, of which the bounds of time are."""

    async def run(self) -> list[str]:
        """Run it; return what is wrong, nothing if the sandbox held."""
        if self.operation.get("op") == "create_refused":
            return await self._create_refused()
        folder = Path("/var/tmp") / f"runner-decoys-{os.getpid()}-{self.id}"
        async with Decoys(folder) as self.decoys:
            try:
                self.sandbox: Sandbox = await self._provider.create(self._request())
            except SandboxUnavailableError as error:
                # Refused in the open is held, unless the case needs it to work.
                return [str(error)] if self.case["expect"]["exit"] == "zero" else []
            try:
                self.decoys.give_to(self._find_place())
                await self._steps()
            finally:
                self.decoys.end_peer()
                await self.sandbox.destroy()
        return self.problems

    def _find_place(self) -> int:
        """Note where the workspace is on the host; return the user of its commands."""
        self.workspace = self._root / f"case-{self.id}"
        self.source = self.workspace / "job" / "src"
        return (self.workspace / "home").stat().st_uid

    def _request(self) -> SandboxRequest:
        asked = self.case.get("limits", {})
        names = {
            "nofile": "open_files",
            "nproc": "pids",
            "memory": "memory_bytes",
            "workspace": "disk_bytes",
            "fsize": "file_bytes",
        }
        limits = Limits(**{names[name]: value for name, value in asked.items()})
        network = NETWORKS[self.case["net"]]
        port = self.decoys.tcp_port
        hosts = (f"allowed.test=127.0.0.1:{port}",) if network is Network.HOSTS else ()
        return SandboxRequest(
            name=f"case-{self.id}",
            min_tier=Tier.LANDLOCK,
            network=network,
            hosts=hosts,
            limits=limits,
        )

    async def _steps(self) -> None:
        setup = self.case.get("host_setup", "")
        if setup and (failed := await self._on_host(setup)):
            self.problems.append(f"the set-up failed: {failed}")
        before = _resident_bytes()
        async with self._around():
            result = await self._command()
        self._judge(result, time.monotonic() - self._started)
        await self._operate(before)
        self._after()
        check = self.case.get("host_check", "")
        if check and (failed := await self._on_host(check)):
            self.problems.append(f"the host's check failed: {failed}")

    async def _command(self) -> ExecResult | None:
        env = {**self.decoys.environment(), "WS": self.sandbox.inside("/job/src")}
        if self.operation.get("op") == "env_refused":
            return await self._env_refused(env)
        request = ExecRequest(
            argv=("/bin/sh", "-c", self.case["command"]),
            env=env,
            cwd=self.sandbox.inside("/job/src"),
            timeout_s=self.case["timeout_s"],
            grace_s=GRACE_S,
        )
        command = await self.sandbox.exec(request)
        self._started = time.monotonic()  # a container takes as long to start as its host is busy
        watcher = asyncio.create_task(self._while_running(command))
        async for piece in command.stream():
            self.output = (self.output + piece)[:KEPT_BYTES]
        result = await command.wait()
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
        return result

    @contextlib.asynccontextmanager
    async def _around(self) -> AsyncIterator[None]:
        if self.operation.get("op") != "leak_fd":
            yield
            return
        fd = os.open(self.decoys.victim, os.O_RDONLY)
        os.set_inheritable(fd, True)
        try:
            yield
        finally:
            os.close(fd)

    async def _while_running(self, _: Command) -> None:
        operation = self.operation.get("op")
        while operation in {"ps_scan", "host_connect_must_fail", "download_race"}:
            if operation == "ps_scan":
                lines = [_whole_command_line(pid) for pid in procfs.snapshot()]
                if any(self.decoys.job_secret.encode() in line for line in lines):
                    self.problems.append("an argument list holds the job's secret")
            elif operation == "host_connect_must_fail":
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", self.decoys.free_port), 1).close()
                    self.problems.append("the port can be reached from the host")
            else:
                with contextlib.suppress(TransferRefusedError, FileNotFoundError):
                    content = await self.sandbox.download("src/a/victim", DOWNLOAD_BYTES)
                    if self.decoys.secret.encode() in content:
                        self.problems.append("a download returned the host's secret")
            await asyncio.sleep(0.001 if operation == "download_race" else 0.05)

    async def _env_refused(self, env: Mapping[str, str]) -> ExecResult | None:
        """Ask for what cannot be a variable, and look at what is inherited."""
        cwd = self.sandbox.inside("/job/src")
        for name in ("A=B", "", "A\0"):
            command = await self.sandbox.exec(
                ExecRequest(argv=("true",), env={name: "x"}, cwd=cwd, timeout_s=10)
            )
            with contextlib.suppress(CommandNotStartedError):
                await command.wait()
                self.problems.append(f"{name!r} was taken for the name of a variable")
        os.environ.update({"LD_BIND_NOW": "1", "BASH_ENV": "x", "PYTHONSTARTUP": "x"})
        lister = await self.sandbox.exec(
            ExecRequest(argv=("/usr/bin/env",), env={"X": "a\nb"}, cwd=cwd, timeout_s=10)
        )
        output = b"".join([piece async for piece in lister.stream()])
        for daemons in ("LD_BIND_NOW", "BASH_ENV", "PYTHONSTARTUP"):
            if daemons.encode() in output:
                self.problems.append(f"{daemons} is inherited")
            os.environ.pop(daemons, None)
        if b"X=a\nb\n" not in output:
            self.problems.append("a line end in a value was lost")
        return await lister.wait()

    def _judge(self, result: ExecResult | None, seconds: float) -> None:
        expect = self.case["expect"]
        wanted = expect["exit"]
        code = 0 if result is None else result.exit_code
        timed_out = result is not None and result.timed_out
        held = {
            "any": True,
            "zero": code == 0,
            "nonzero": code != 0 and not timed_out,
            "timeout": timed_out,
        }.get(wanted, code == wanted)
        if not held:
            self.problems.append(f"exit {code}, timed out: {timed_out}; expected {wanted}")
        for text in expect.get("out_has", ()):
            if text.encode() not in self.output:
                self.problems.append(f"the output lacks {text!r}")
        for text in expect.get("out_lacks", ()):
            if text.encode() in self.output:
                self.problems.append(f"the output has {text!r}")
        if seconds > expect.get("max_s", 60):
            self.problems.append(f"it took {seconds:.1f} s")
        if result is not None and result.survivors:
            self.problems.append(f"survivors: {result.survivors}")
        if self.decoys.secret.encode() in self.output:
            self.problems.append("the output holds the host's secret")

    async def _operate(self, memory_before: int) -> None:
        operation = self.operation.get("op")
        if operation == "download":
            with contextlib.suppress(TransferRefusedError, FileNotFoundError):
                await self.sandbox.download(f"src/{self.operation['path']}", DOWNLOAD_BYTES)
                self.problems.append("the download was not refused")
        elif operation == "upload":
            given = self.decoys.folder / "given"
            given.mkdir()
            name = Path(self.operation["path"])
            (given / name.name).write_text("new")
            with contextlib.suppress(TransferRefusedError):
                await self.sandbox.upload(given, f"src/{name.parent}")
                self.problems.append("the upload was not refused")
        elif operation == "output_cap":
            if _resident_bytes() - memory_before > MEMORY_GROWTH_BYTES:
                self.problems.append("the output is kept in memory")
        elif operation == "close_removes":
            await self.sandbox.destroy()
            if self.workspace.exists():
                self.problems.append("the workspace is still there")
        elif operation == "mask":
            self._mask()
        elif operation == "render":
            shown = TerminalFilter().feed(self.output)
            if b"\x1b" in shown or b"\x07" in shown or b"::set-output" not in shown:
                self.problems.append(f"on a terminal: {shown!r}")

    def _mask(self) -> None:
        masker = Masker()
        masker.add("T_JOBSECRET", self.decoys.job_secret)
        stream = masker.stream()
        pieces = (self.output[:9], self.output[9:])
        masked = b"".join(stream.feed(piece) for piece in pieces) + stream.close()
        if self.decoys.job_secret.encode() in masked or masked.count(b"***") != 2:
            self.problems.append(f"masked: {masked!r}")

    def _after(self) -> None:
        """Look for what every case must leave as it was."""
        self.problems += self.decoys.damage()
        host_steps = self.case.get("host_setup", "") + self.case.get("host_check", "")
        self.problems += self.decoys.new_entries(host_steps)
        for stat in procfs.snapshot().values():
            if stat.alive and procfs.environ_value(stat.pid, "T_MARK") == self.decoys.mark:
                self.problems.append(f"{procfs.command_line(stat.pid)} still runs")

    async def _on_host(self, script: str) -> str:
        """Run a step of the host as the job's user; return what went wrong."""
        env = {**self.decoys.environment(), "WS": str(self.source), "PATH": os.environ["PATH"]}
        env["HOME"] = str(self.decoys.home)
        process = await asyncio.create_subprocess_exec(
            *self.decoys.as_user(), "/bin/sh", "-c", script,
            env=env, cwd=self.source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        said = output.decode("utf-8", "replace")[-300:]
        return "" if process.returncode == 0 else f"exit {process.returncode} {said}"

    async def _create_refused(self) -> list[str]:
        folder = Path("/var/tmp") / f"runner-decoys-{os.getpid()}-{self.id}"
        async with Decoys(folder) as decoys:
            decoys.give_to(os.geteuid())
            link = folder / "link-to-root"
            link.symlink_to("/")
            for text in self.operation.get("workspaces", ()):
                path = text.replace("$T_STATE", str(decoys.state)).replace("$WS", str(folder))
                # The check alone: a provider that did not ask it would change the very host.
                with contextlib.suppress(SandboxUnavailableError):
                    check_root(Path(path))
                    self.problems.append(f"{path} was taken for the folder of the workspaces")
            mode = decoys.state.stat().st_mode
            provider = FilesystemProvider(decoys.state, owner_label="refused")
            with contextlib.suppress(SandboxUnavailableError):
                await provider.probe()
                self.problems.append("the provider does not ask")
            if decoys.state.stat().st_mode != mode:
                self.problems.append("the mode of the refused folder was changed")
            self.problems += decoys.damage()
        return self.problems


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def _whole_command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
