"""A runner installation of one test: its own home, state directory and free port, driven by the console script only."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.waiting import wait_until

RUNNER = str(Path(sys.executable).with_name("runner"))
PROCESSES = ("daemon", "job-server", "agent-runner")


@dataclass
class Instance:
    """One isolated installation. ``stop`` may be called at any moment."""

    root: Path
    extra_env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home = self.root / "home"
        self.state = self.root / "state"
        self.home.mkdir(parents=True, exist_ok=True)

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": f"{Path(RUNNER).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "RUNNER_STATE_DIR": str(self.state),
            "LANG": "C.UTF-8",
            **self.extra_env,
        }

    def run(
        self, *args: str, stdin: bytes = b"", timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one command to its end, with no terminal."""
        return subprocess.run(
            [RUNNER, *args],
            env=self.env,
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def ok(self, *args: str, stdin: bytes = b"", timeout: float = 60) -> str:
        """Run one command that must succeed; return what it printed."""
        done = self.run(*args, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, (
            f"{args}: exit {done.returncode}\n{done.stdout!r}\n{done.stderr.decode()}"
        )
        return done.stdout.decode()

    def fails(self, *args: str, code: int, stdin: bytes = b"") -> str:
        """Run one command that must fail with one clear line; return that line."""
        done = self.run(*args, stdin=stdin)
        error = done.stderr.decode()
        assert done.returncode == code, (
            f"{args}: exit {done.returncode}, not {code}\n{done.stdout!r}\n{error}"
        )
        assert "Traceback" not in error
        return error.strip()

    def popen(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start one command and leave it running."""
        return subprocess.Popen([RUNNER, *args], env=self.env, stdin=subprocess.DEVNULL, **options)

    def start(self, *args: str) -> str:
        """Start local mode without asking anything; return its progress lines."""
        done = self.run("local", "start", "--no-input", "--listen", "127.0.0.1:0", *args)
        assert done.returncode == 0, done.stderr.decode() + self.tails()
        return done.stderr.decode()

    def stop(self) -> None:
        """Stop whatever runs; harmless when nothing does."""
        done = self.run("local", "stop", "--now")
        assert done.returncode in (0, 3), done.stderr.decode() + self.tails()

    def status(self) -> dict[str, Any]:
        return json.loads(self.ok("local", "status", "--json"))

    def pid(self, process: str) -> int:
        return int(self.status()["processes"][process]["pid"])

    def pids(self) -> list[int]:
        return [self.pid(process) for process in PROCESSES]

    def kill(self, process: str) -> int:
        """Kill one process with SIGKILL; return its pid."""
        pid = self.pid(process)
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_all(self) -> None:
        """Kill all processes at once, so that nobody cleans up; they stand still first, or the later ones might leave before."""
        pids = [int(process["pid"]) for process in self.status()["processes"].values()]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, number)
        wait_until(lambda: not any(alive(pid) for pid in pids), 30)

    def submit(self, command: str, *args: str) -> str:
        """Submit a shell command; return the id of the job."""
        return self.ok("jobs", "submit", *args, "--", "/bin/sh", "-c", command).strip()

    def wait(self, job_id: str, timeout: float = 60) -> dict[str, Any]:
        """Wait for the end of a job; return it as JSON."""
        done = self.run("jobs", "wait", job_id, "--json", timeout=timeout)
        assert done.stdout, done.stderr.decode() + self.tails()
        return json.loads(done.stdout)

    def job(self, job_id: str) -> dict[str, Any]:
        return json.loads(self.ok("jobs", "show", job_id, "--json"))

    def log(self, job_id: str, *args: str) -> bytes:
        done = self.run("jobs", "logs", job_id, *args)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def wait_running(self, job_id: str) -> None:
        wait_until(
            lambda: self.job(job_id)["state"] == "RUNNING", 60, lambda: str(self.job(job_id))
        )

    def wait_log(self, job_id: str, text: bytes) -> None:
        """Wait until the log of a running job holds some bytes."""
        wait_until(lambda: text in self.log(job_id), 60, f"{text!r} in the log of {job_id}")

    def job_file(self, text: str, name: str = "job.yaml") -> str:
        path = self.root / name
        path.write_text(text)
        return str(path)

    def tails(self) -> str:
        """Return the ends of the runner's own logs, for the message of a failing test."""
        parts = []
        for process in PROCESSES:
            path = self.state / "logs" / f"{process}.log"
            if path.exists():
                parts.append(f"--- {process}.log\n{path.read_text(errors='replace')[-3000:]}")
        return "\n".join(parts)

    def processes_of_state(self) -> list[str]:
        """Return every process whose command line or environment names this state directory."""
        found = []
        needle = os.fsencode(self.state)
        for process in psutil.process_iter():
            if process.pid == os.getpid():
                continue
            for name in ("cmdline", "environ"):
                try:
                    if needle in Path(f"/proc/{process.pid}/{name}").read_bytes():
                        found.append(f"{process.pid} {' '.join(process.cmdline())}")
                        break
                except (OSError, psutil.NoSuchProcess):
                    continue
        return found

    def wait_gone(self, deadline_s: float = 30) -> None:
        wait_until(
            lambda: not self.processes_of_state(),
            deadline_s,
            lambda: str(self.processes_of_state()),
        )

    def workspaces(self) -> list[str]:
        """Return what is left of workspaces, wherever this user's lie."""
        if os.geteuid() == 0:
            digest = hashlib.sha256(os.fsencode(self.state)).hexdigest()[:12]
            folder = Path("/var/lib/runner") / digest
        else:
            folder = self.state / "workspaces"
        # What goes away meanwhile is not there: `Path.rglob` fails for it.
        return [
            os.path.join(at, name) for at, dirs, files in os.walk(folder) for name in dirs + files
        ]

    def spooled(self) -> list[str]:
        """Return what is left of logs and results on their way to the server."""
        folder = self.state / "spool"
        return [str(path) for path in folder.rglob("*")] if folder.is_dir() else []

    def files_with(self, needle: bytes) -> list[str]:
        """Return every file below the root that holds some bytes."""
        files = (path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink())
        return [str(path) for path in files if needle in path.read_bytes()]


def alive(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
