"""A job server and an agent-runner in the foreground, as staging runs them: in clear, or with TLS and issued tokens."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from benchmarks.authority import make_identity
from benchmarks.goals import Plan
from benchmarks.installation import RUNNER

_READY_BOUND_S = 60.0
_STOP_BOUND_S = 30.0


class Staging:
    """Two processes with states of their own; a context manager that leaves nothing behind."""

    def __init__(self, plan: Plan, *, secured: bool, slots: int) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="s-", dir=plan.root))
        self._secured = secured
        self._slots = slots
        self.target: dict[str, str] = {}
        """Where the job server is on TCP, and how to be let in, for the measuring client."""
        self._stack = ExitStack()
        self._env = {
            "PATH": f"{Path(RUNNER).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._root),
            "LANG": "C.UTF-8",
        }

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        words = ["server", "--listen", "127.0.0.1:0"]
        if self._secured:
            certificate, key = make_identity(self._root)
            words += ["--tls-certificate", str(certificate), "--tls-key", str(key)]
        self._spawn("server", *words)
        words = ["agent-runner", "--server", self._address(), "--slots", str(self._slots)]
        words += ["--mode", "local", "--sandbox-tier", "plain", "--allow-unsandboxed"]
        if self._secured:
            words += ["--tls-ca", str(self._root / "server.crt")]
        token = self._root / "agent-token"
        token.touch(mode=0o600)
        token.write_text(self._token("agent"))
        self._spawn("agent", *words, "--token-file", str(token))
        self.target = {"endpoint": self._address(), "token": self._token("client")}
        if self._secured:
            self.target["tls_ca"] = str(self._root / "server.crt")

    def _spawn(self, name: str, *words: str) -> None:
        with (self._root / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [RUNNER, "--state-dir", str(self._root / name), *words],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for whoever asks
            )
        self._stack.callback(_stop, process)

    def _address(self) -> str:
        """Return the address on TCP, once the server serves."""
        port = str(self._endpoints()["tcp"]).rpartition(":")[2]
        return f"localhost:{port}"

    def _endpoints(self) -> Mapping[str, Any]:
        end = time.monotonic() + _READY_BOUND_S
        path = self._root / "server" / "endpoints.json"
        while not path.exists():
            if time.monotonic() > end:
                raise RuntimeError(f"no server: {(self._root / 'server.log').read_text()[-500:]}")
            time.sleep(0.05)
        found: Mapping[str, Any] = json.loads(path.read_bytes())["endpoints"]
        return found

    def _token(self, role: str) -> str:
        self._endpoints()
        state = self._root / "server"
        if not self._secured:
            return (state / "token").read_text().strip()
        words = ("tokens", "create", "--role", role, "--project", "default")
        done = subprocess.run(
            [RUNNER, "--state-dir", str(state), *words],
            env=self._env,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode().strip()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_BOUND_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
