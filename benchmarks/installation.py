"""An installation of the runner for measurements alone: its own home and state, driven by the console script."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from benchmarks.goals import Plan, UnavailableError
from daemon.paths import StateDir, find_state_dir

RUNNER = str(Path(sys.executable).with_name("runner"))
PROCESSES = ("daemon", "job-server", "agent-runner")
_STOP_BOUND_S = 30.0


class Installation:
    """One isolated installation; a context manager that leaves nothing behind."""

    def __init__(
        self,
        plan: Plan,
        *flags: str,
        secrets: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="i-", dir=plan.root))
        (self.root / "home").mkdir()
        self._secrets = dict(secrets or {})
        self._flags = [*flags, *(f"--secret={name}" for name in self._secrets)]
        self._start = start
        self.env = {
            "PATH": f"{Path(RUNNER).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.root / "home"),
            "RUNNER_STATE_DIR": str(self.root / "state"),
            "LANG": "C.UTF-8",
            **(settings or {}),
        }
        self.state: StateDir = find_state_dir(self.env)

    def __enter__(self) -> Self:
        try:
            if self._start:
                self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def start_command(self) -> list[str]:
        """Return the command that starts this installation."""
        listen = ("--no-input", "--listen", "127.0.0.1:0")
        return [RUNNER, "local", "start", *listen, *self._flags]

    @property
    def target(self) -> dict[str, str]:
        """Return where the job server is, and the token, for the measuring client."""
        document = json.loads(self.state.endpoints.read_bytes())
        return {
            "endpoint": document["endpoints"]["unix"],
            "token": self.state.token.read_text().strip(),
        }

    def start(self) -> None:
        """Start all three processes.

        Raises:
            UnavailableError: They do not start; holds the last line that was said.
        """
        done = subprocess.run(
            self.start_command,
            env=self.env | self._secrets,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            lines = done.stderr.decode().strip().splitlines() or ["it said nothing"]
            kind = (
                UnavailableError if "sandbox" in lines[-1] or "tier" in lines[-1] else RuntimeError
            )
            raise kind(f"not available: {lines[-1]}")

    def pid(self, process: str) -> int:
        """Return the pid of one of the three."""
        shown = self.run("local", "status", "--json")
        document: dict[str, Any] = json.loads(shown)
        return int(document["processes"][process]["pid"])

    def run(self, *args: str) -> str:
        """Run one command of the runner and return what it printed."""
        done = subprocess.run(
            [RUNNER, *args], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, check=True
        )
        return done.stdout.decode()

    def stop(self) -> None:
        """Stop whatever runs, and collect the daemon, which became our child."""
        daemon = self._daemon_pid()
        stopping = subprocess.Popen(
            [RUNNER, "local", "stop", "--now"],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C must not reach it
        )
        deadline = time.monotonic() + _STOP_BOUND_S
        while stopping.poll() is None and time.monotonic() < deadline:
            _collect(daemon)
            time.sleep(0.005)
        if stopping.poll() is None:
            stopping.kill()
            stopping.wait()
            if daemon:
                os.kill(daemon, signal.SIGKILL)
        _collect(daemon)

    def close(self) -> None:
        """Stop and remove everything. Idempotent."""
        if self.root.exists():
            self.stop()
            shutil.rmtree(self.state.workspaces, ignore_errors=True)
            shutil.rmtree(self.state.runtime, ignore_errors=True)
            shutil.rmtree(self.root, ignore_errors=True)

    def _daemon_pid(self) -> int:
        try:
            return self.pid("daemon")
        except (subprocess.CalledProcessError, KeyError, ValueError):
            return 0


def _collect(pid: int) -> None:
    if pid:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return
