"""The measuring client seen from the groups: a process that answers one request at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

OWN_CLIENT = (sys.executable, "-m", "benchmarks.client")
_PROJECT = Path(__file__).absolute().parent.parent


class ClientProcess:
    """A context manager; its process imports grpc, this one never does. The client of a peer is another command."""

    def __init__(
        self, argv: Sequence[str] = OWN_CLIENT, env: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            argv,
            cwd=_PROJECT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C is for whoever asks
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, op: str, **arguments: Any) -> Any:
        """Have one operation of ``benchmarks.client`` done and return its result.

        Raises:
            RuntimeError: It failed there.
        """
        self.begin(op, **arguments)
        return self.result()

    def begin(self, op: str, **arguments: Any) -> None:
        """Have an operation begun; ``result`` waits for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
        self._process.stdin.flush()

    def result(self) -> Any:
        """Return what the operation that was begun found."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the measuring client has died"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]
