"""A daemon with stand-ins for its children, on a state directory of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from agent_runner.container_policy import ContainerPolicy
from daemon.config import LocalConfig
from daemon.local.start import StartResult, start_local
from daemon.local.status import status_local
from daemon.local.stop import stop_local
from daemon.paths import StateDir

STAND_IN = str(Path(__file__).with_name("stand_in.py"))
SECRET = "canary-0815-walrus"
CONFIG = LocalConfig(
    listen="none",
    slots=2,
    sandbox_tier="auto",
    allow_unsandboxed=False,
    agent_name="local",
    drain_timeout_s=1,
    secrets=(),
    env_label="test",
    # The default is a table that cannot be changed, and not be pickled for a process of its own either.
    containers=ContainerPolicy(execution_mode={}),
)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


class Local:
    """One state directory and what its children do."""

    def __init__(self, root: Path) -> None:
        self.state = StateDir(root / "state", root / "run")
        self.server_words: tuple[str, ...] = ("listen=127.0.0.1:7",)
        self.agent_words: tuple[str, ...] = ()
        self.agents = 1
        self.grace_s = 0.3
        self.lines: list[dict[str, Any]] = []

    def children(self, *_: Any) -> list[dict[str, Any]]:
        base = [sys.executable, "-P", STAND_IN]
        return [
            {
                "name": "job-server",
                "argv": [*base, *self.server_words],
                "env": {},
                "grace_s": self.grace_s,
            },
            *(
                {
                    "name": "agent-runner" + (f"-{number}" if number > 1 else ""),
                    "argv": [*base, *self.agent_words],
                    "env": {"PATH": "/usr/bin:/bin"},
                    "grace_s": self.grace_s,
                    "gets_secrets": True,
                    "drains": True,
                    "leaves_orphans": True,
                }
                for number in range(1, self.agents + 1)
            ),
        ]

    def start(self, **options: Any) -> StartResult:
        options = {"children": self.children, **options}
        return start_local(self.state, CONFIG, {"KEY": SECRET}, self.lines.append, **options)

    def stop(self, *, now: bool = False, **bounds: float) -> None:
        stop_local(self.state, None, now, self.lines.append, **bounds)

    def process(self, name: str) -> dict[str, Any]:
        return status_local(self.state)["processes"][name]

    def pids(self) -> list[int]:
        return [entry["pid"] for entry in status_local(self.state)["processes"].values()]

    def agent_env(self, name: str) -> str:
        """Return a variable that the agent-runner was started with; needs the same user or root."""
        content = Path(f"/proc/{self.process('agent-runner')['pid']}/environ").read_bytes()
        variables = dict(item.split("=", 1) for item in content.decode().split("\0") if item)
        return variables[name]

    def agent_digest(self) -> str:
        """Return the digest of the last start of the agent-runner, as it was reported."""
        lines = [line for line in self.lines if line.get("process") == "agent-runner"]
        return next(line["digest"] for line in reversed(lines) if "digest" in line)
