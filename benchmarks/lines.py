"""P15: a child that flushes every line, against a gRPC stream with one message per line."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.client_process import ClientProcess
from benchmarks.goals import Goal, Group, Reading, UnavailableError
from benchmarks.installation import Installation
from benchmarks.log_path import BLOCK_LINES, LINE_BYTES, MB, take_log_bytes, write_lines
from benchmarks.throughput import PLAIN

_PROJECT = Path(__file__).absolute().parent.parent


def flush_command(path: Path, times: int) -> str:
    """Return a shell command that prints the lines of a file several times, one write(2) per line."""
    return f"perl -e '@l = <>; for (1..{times}) {{ syswrite STDOUT, $_ for @l }}' {path}"


class FlushedLines(Group):
    """Lines of 80 bytes. Every byte must arrive."""

    goals = (Goal("P15", "flushed lines/s vs one message per line", 20, 100, at_most=False),)

    def prepare(self, stack: ExitStack) -> None:
        """Write the lines, start an installation and the server that counts.

        Raises:
            UnavailableError: There is no child that writes line by line and is fast.
        """
        if shutil.which("perl") is None:
            raise UnavailableError("not available: perl is not installed")
        self._times = self.plan.amount(60, 20)
        self._lines = self.plan.root / "p15-lines"
        self._copy = self.plan.root / "p15-copy"
        write_lines(self._lines, 1)
        stack.callback(self._lines.unlink)
        self._client = stack.enter_context(ClientProcess())
        self._installation = stack.enter_context(Installation(self.plan, *PLAIN))
        self._socket = self.plan.root / "p15.sock"
        self._serve(stack)

    def round(self) -> list[Reading]:
        """Messages, the child alone, then the job."""
        messages = self.plan.amount(20_000, 8000)
        seconds = self._client.ask(
            "messages", socket=str(self._socket), messages=messages, size=LINE_BYTES
        )
        floor = messages / seconds
        count = self._times * BLOCK_LINES
        alone, job = count / self._alone_s(), count / self._job_s()
        thousands = f"{job / 1000:.0f} k/s of {floor / 1000:.1f} k/s"
        return [Reading(job / floor, f"{thousands}; the child into a file {alone / 1000:.0f} k/s")]

    def _serve(self, stack: ExitStack) -> None:
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.messages", str(self._socket)],
                cwd=_PROJECT,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the server that counts messages does not start")

    def _alone_s(self) -> float:
        command = f"{flush_command(self._lines, self._times)} | cat > {self._copy}"
        start = time.monotonic()
        subprocess.run(["/bin/sh", "-c", command], check=True)
        elapsed = time.monotonic() - start
        self._copy.unlink()
        return elapsed

    def _job_s(self) -> float:
        done = self._client.ask(
            "output",
            target=self._installation.target,
            argv=["/bin/sh", "-c", flush_command(self._lines, self._times)],
            env={},
            follow=False,
        )
        size = take_log_bytes(self._installation, done["job_id"])
        if size != self._times * MB:
            raise RuntimeError(f"{size} bytes arrived, not {self._times * MB}")
        return float(done["seconds"])
