"""The daemon's view of the secret store: its values, read anew by a short-lived process when the file has changed.

The daemon itself imports no cryptography: that is several megabytes in a process that lives for weeks. It holds the
derived key of the store, never its password, and gives it to the reading process through a pipe.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent_runner.secret_refs import LOCAL_PATH, SecretRef

READ_BOUND_S = 20.0
"""An idle machine needs a fifth of a second."""

logger = logging.getLogger(__name__)

LOCKED = (
    "the secret store was not unlocked when the runner was started; `runner local restart --unlock` "
    "asks for its password, or give it by RUNNER_SECRETS_PASSWORD"
)
STALE = (
    "the password of the secret store was changed since the runner was started; "
    "`runner local restart` unlocks it again"
)
NO_STORE = (
    "there was no secret store when the runner was started; after `runner secrets init` and `runner "
    "secrets set PATH KEY`, `runner local restart` takes it up"
)

SERVICE_LOCKED = (
    "the secret store was not unlocked when this agent-runner was started: give its password by --password-file "
    "or RUNNER_SECRETS_PASSWORD, and start it again"
)
SERVICE_STALE = "the password of the secret store was changed since this agent-runner was started; start it again"
SERVICE_NO_STORE = (
    "this agent-runner was started without a secret store; after `runner secrets init` and `runner secrets "
    "set PATH KEY` there, start it again"
)

Identity = tuple[int, int, int, int, int]


class StoreReader:
    """Answers from memory as long as the file of the store is the one that was read. One per daemon."""

    def __init__(
        self, store: Mapping[str, Any], spared: set[int], *, service: bool = False
    ) -> None:
        """Take what the launch document says of the store.

        Args:
            store: ``path`` and ``key``, both empty where there is none; see ``daemon.local.launch``.
            spared: Gets the pids of reading processes while they live, so that nobody takes them for leftovers.
            service: Whether a service manager starts this process, and not ``runner local``; for the advice to people.
        """
        self._service = service
        self._path = str(store.get("path") or "")
        self._key = str(store.get("key") or "")
        self._spared = spared
        self._reading = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._identity: Identity | None = None
        self._values: dict[SecretRef, str] = {}
        self._unusable: dict[SecretRef, str] = {}
        self._problem = ""

    async def find(self, names: Iterable[Sequence[str]]) -> tuple[dict[SecretRef, str], str]:
        """Return the values that the store has now, and what a person can do about the rest.

        An unchanged file costs one stat. Never raises for what is wrong with the store.

        Args:
            names: Path and key of each.
        """
        asked = [SecretRef(path, key) for path, key in names]
        if not self._key:
            return {}, self._why_closed(asked)
        async with self._reading:
            try:
                identity = _identity(self._path)
            except OSError as error:
                self._forget()
                return {}, f"the secret store {self._path} cannot be read: {error.strerror}"
            if identity != self._identity:
                self._identity = identity if await self._read() else None
            found = {ref: self._values[ref] for ref in asked if ref in self._values}
            unusable = [ref for ref in asked if ref in self._unusable]
            why = "; ".join(f"the value of {ref} {self._unusable[ref]}" for ref in unusable)
            return found, why or self._problem

    def close(self) -> None:
        """End a reading process that still runs. Idempotent."""
        if self._process is not None:
            self._process.kill()

    def _why_closed(self, asked: Iterable[SecretRef]) -> str:
        if self._path and Path(self._path).exists():
            return SERVICE_LOCKED if self._service else LOCKED
        # What `local start` gathers needs no store, so whoever misses it is not sent there.
        if not self._service and all(ref.path == LOCAL_PATH for ref in asked):
            return ""
        return SERVICE_NO_STORE if self._service else NO_STORE

    def _forget(self) -> None:
        self._identity, self._values, self._unusable = None, {}, {}
        self._problem = ""

    async def _read(self) -> bool:
        """Read the whole store; False if it is to be tried again for the next question.

        A store that cannot be read has no values, and a problem.
        """
        self._forget()
        try:
            answer = await self._ask_process()
        except (OSError, ValueError, subprocess.TimeoutExpired):
            logger.exception("The secret store was not read", extra={"action": "store_not_read"})
            self._problem = "the secret store could not be read; see daemon.log"
            return False
        stale = SERVICE_STALE if self._service else STALE
        self._problem = stale if answer.get("stale") else str(answer.get("problem", ""))
        self._values = {
            SecretRef(path, key): value for path, key, value in answer.get("values", ())
        }
        self._unusable = {
            SecretRef(path, key): problem for path, key, problem in answer.get("unusable", ())
        }
        return True

    async def _ask_process(self) -> dict[str, Any]:
        question = json.dumps({"path": self._path, "key": self._key}).encode()
        process = self._process = self._spawn()
        try:
            output, errors = await asyncio.to_thread(_exchange, process, question)
        finally:
            process.kill()
            process.wait()
            self._spared.discard(process.pid)
            self._process = None
        if errors:
            said = errors.decode("utf-8", "replace")
            logger.warning("Reading the store said", extra={"action": "store_read", "said": said})
        answer: dict[str, Any] = json.loads(output)
        return answer

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start a reading process; called on the event loop, so that its pid is known before anybody looks for leftovers."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "daemon.secrets.store_reading"],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._spared.add(process.pid)
        return process


def _exchange(process: subprocess.Popen[bytes], question: bytes) -> tuple[bytes, bytes]:
    return process.communicate(question, timeout=READ_BOUND_S)


def _identity(path: str) -> Identity:
    found = os.stat(path)  # noqa: PTH116 - asked for each attempt
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
