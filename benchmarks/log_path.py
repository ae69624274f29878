"""P13, P29: a job that floods its log: how fast it goes, and what it costs in memory."""

from __future__ import annotations

import random
import secrets
import shutil
import string
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import memory
from benchmarks.client_process import ClientProcess
from benchmarks.goals import Goal, Group, Plan, Reading
from benchmarks.installation import Installation
from benchmarks.throughput import PLAIN

MB = 1_000_000
LINE_BYTES = 80
BLOCK_LINES = 12_500
SECRETS = 10


def write_lines(path: Path, size_mb: int) -> None:
    """Write a file of lines of 80 bytes that everybody may read."""
    source = random.Random(29)
    letters = string.ascii_letters + string.digits + "    .:/=-_"
    lines = ("".join(source.choices(letters, k=LINE_BYTES - 1)) for _ in range(BLOCK_LINES))
    block = "".join(f"{line}\n" for line in lines).encode()
    with path.open("wb") as file:
        for _ in range(size_mb):
            file.write(block)
    path.chmod(0o644)


def secret_values() -> tuple[dict[str, str], dict[str, str]]:
    """Return new secrets by their names, and the environment of a job that asks for them."""
    values = {f"BENCH_{i}": secrets.token_urlsafe(24) for i in range(SECRETS)}
    return values, {name: f"${{secret:local:{name}}}" for name in values}


def copy_command(path: Path, times: int) -> str:
    """Return a shell command that writes a file several times in pieces of 4 KiB."""
    return "; ".join([f"dd if={path} bs=4k status=none"] * times)


def print_command(path: Path, times: int) -> str:
    """Return a shell command that prints the lines of a file one by one, several times.

    A program with buffered output, as most that print are; one that only copies gives a higher floor.
    """
    if shutil.which("perl") is None:
        return copy_command(path, times)
    return f"perl -e '@l = <>; for (1..{times}) {{ print for @l }}' {path}"


def take_log_bytes(installation: Installation, job_id: str) -> int:
    """Remove the log of a job from the server's files, however it arranges them, and return its length."""
    size = 0
    for path in installation.state.job_logs.rglob("*"):
        if path.is_file() and job_id in str(path):
            size += path.stat().st_size
            path.unlink()
    return size


class LogThroughput(Group):
    """Output with ten secrets to look for, into the server's file; against a pipe into a file."""

    goals = (Goal("P13", "masked log MB/s vs `child | cat > file`", 0.15, 0.3, at_most=False),)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._size = plan.amount(200, 60)
        self._lines = plan.root / "p13-lines"
        self._copy = plan.root / "p13-copy"

    def prepare(self, stack: ExitStack) -> None:
        """Write the lines, start an installation with secrets, and see that it masks them."""
        write_lines(self._lines, 1)
        stack.callback(self._lines.unlink)
        values, self._env = secret_values()
        self._client = stack.enter_context(ClientProcess())
        self._installation = stack.enter_context(Installation(self.plan, *PLAIN, secrets=values))
        shown = self._client.ask(
            "output",
            target=self._installation.target,
            argv=["/bin/sh", "-c", 'echo "<$BENCH_3>"'],
            env=self._env,
            follow=True,
        )["head"]
        if "<" not in shown or values["BENCH_3"] in shown:
            raise RuntimeError(f"the secret is not masked: {shown!r}")

    def round(self) -> list[Reading]:
        """The pipe, the job, and the pipe again: it takes no fifth of a second, so one alone says little."""
        piped_s = self._piped_s()
        done = self._client.ask(
            "output",
            target=self._installation.target,
            argv=["/bin/sh", "-c", print_command(self._lines, self._size)],
            env=self._env,
            follow=False,
        )
        size = take_log_bytes(self._installation, done["job_id"])
        if size != self._size * MB:
            raise RuntimeError(f"{size} bytes arrived, not {self._size * MB}")
        speed = self._size / done["seconds"]
        floor = 2 * self._size / (piped_s + self._piped_s())
        return [Reading(speed / floor, f"{speed:.0f} MB/s of {floor:.0f} MB/s")]

    def _piped_s(self) -> float:
        command = f"{{ {print_command(self._lines, self._size)}; }} | cat > {self._copy}"
        start = time.monotonic()
        subprocess.run(["/bin/sh", "-c", command], check=True)
        elapsed = time.monotonic() - start
        self._copy.unlink()
        return elapsed


class LogMemory(Group):
    """How far memory grows while a job floods its log and a client follows it."""

    goals = (
        Goal("P29", "server peak memory while a job prints 600 MB", 40, 16, unit="MB"),
        Goal("P29", "agent-runner peak memory, the same", 12, 6, unit="MB"),
    )

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._size = plan.amount(200, 100)
        self._lines = plan.root / "p29-lines"

    def prepare(self, stack: ExitStack) -> None:
        """Write the lines."""
        write_lines(self._lines, self._size)
        stack.callback(self._lines.unlink)
        self._client = stack.enter_context(ClientProcess())

    def round(self) -> list[Reading]:
        """Flood an installation that has run one job before."""
        with Installation(self.plan, *PLAIN) as installation:
            self._print(installation, "echo hi")
            time.sleep(1)  # the server goes on importing for a moment
            pids = [installation.pid(name) for name in ("job-server", "agent-runner")]
            before = [memory.forget_peak_mb(pid) for pid in pids]
            size = self._print(installation, copy_command(self._lines, 3))
            if size != 3 * self._size * MB:
                raise RuntimeError(f"{size} bytes were followed, not {3 * self._size * MB}")
            peaks = [memory.peak_mb(pid) for pid in pids]
        return [
            Reading(peak - rest, f"{rest:.0f} to {peak:.0f} MB, {3 * self._size} MB printed")
            for rest, peak in zip(before, peaks, strict=True)
        ]

    def _print(self, installation: Installation, command: str) -> int:
        argv = ["/bin/sh", "-c", command]
        done = self._client.ask(
            "output", target=installation.target, argv=argv, env={}, follow=True
        )
        return int(done["bytes"])
