"""How the daemon hands a child what it needs, and how the child answers: inherited descriptors.

Secrets and the token never stand in argv, a file or the environment of a long-lived process, so they come through
a socket. The numbers of the descriptors come in the environment; the child closes none of them to its own children
because Python makes every descriptor non-inheritable on exec (PEP 446).

| variable | direction | what |
|---|---|---|
| ``RUNNER_HANDOVER_FD`` | in | one JSON object with the lock's descriptor, then end of file |
| ``RUNNER_READY_FD`` | out | one JSON line: ``{"ready": {…}}`` or ``{"error": "…"}`` |
| ``RUNNER_LIFE_FD`` | in | never any byte; end of file means that the daemon has died |
| ``RUNNER_SECRETS_FD`` | both | agent-runners only: questions for values of the secret store, see ``secret_source`` |

The lock is that of the state directory, held until the last process of the installation has gone. A process in the
foreground (``runner server``, ``runner agent-runner``) has no daemon: it gets only the first, as anonymous memory, and has
the lock already; ``RUNNER_LOCK_FD`` is its number.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent_runner import document_channel
from agent_runner.descriptors import HANDOVER_FD, LIFE_FD, LOCK_FD, READY_FD, SECRETS_FD
from agent_runner.errors import InvalidConfigError


@dataclass(slots=True)
class Handover:
    """The child's end. Made once, first thing in the process."""

    payload: Mapping[str, Any]
    life_fd: int
    """Becomes readable (end of file) when the daemon dies; -1 without a daemon."""
    _ready_fd: int
    secrets_fd: int = -1
    """A socket to ask the daemon for values of the store; -1 for a child that gets no secrets."""

    @property
    def alone(self) -> bool:
        """Tell whether there is no daemon: signals mean then what they mean to a daemon."""
        return self.life_fd < 0

    def ready(self, facts: Mapping[str, Any]) -> None:
        """Tell the daemon that this process works; called once. A daemon that is gone is no error here."""
        self._answer({"ready": dict(facts)})

    def failed(self, message: str) -> None:
        """Tell the daemon why this process cannot start; called once, before leaving."""
        self._answer({"error": message})

    def status(self, text: str) -> None:
        """Show how things are to a service manager; a daemon has the log."""

    def stopping(self) -> None:
        """Tell whoever must know that this process begins to leave; may be called twice. A daemon knows."""

    async def lost(self) -> None:
        """Return when what the process keeps on disk is not its own any more; never, where the daemon watches that."""
        await asyncio.Event().wait()

    def _answer(self, answer: Mapping[str, Any]) -> None:
        if self._ready_fd < 0:
            return
        try:
            os.write(self._ready_fd, json.dumps(answer).encode() + b"\n")
        except BrokenPipeError:
            pass  # The life descriptor tells the same, and that is where it is handled.
        finally:
            os.close(self._ready_fd)
            self._ready_fd = -1


def has_come(env: Mapping[str, str]) -> bool:
    """Tell whether ``receive`` has nothing to wait for; a process that was spawned ahead has something to do until then.

    Raises:
        InvalidConfigError: The process was not started as it is to be.
    """
    return document_channel.has_come(_number(env, HANDOVER_FD))


def receive(env: Mapping[str, str], *, alone: bool = False) -> Handover:
    """Read the handover of this process and make its descriptors private to it.

    Args:
        env: The environment, which has the numbers.
        alone: Whether the process was started without a daemon: see ``daemon.foreground``.

    Raises:
        InvalidConfigError: The process was not started as it is to be.
    """
    numbers = {}
    for name in (HANDOVER_FD, LOCK_FD) if alone else (HANDOVER_FD, READY_FD, LIFE_FD):
        numbers[name] = _number(env, name)
    secrets_text = env.get(SECRETS_FD, "")
    if secrets_text.isdecimal():
        numbers[SECRETS_FD] = int(secrets_text)
    for number in numbers.values():
        os.set_inheritable(number, False)
    try:
        content, came_along = document_channel.take(numbers[HANDOVER_FD])
    except OSError as error:
        raise InvalidConfigError(f"the handover cannot be taken: {error.strerror}") from error
    if not content:
        raise InvalidConfigError("nothing was handed over: the daemon has gone")
    if not alone and len(came_along) != 1:
        raise InvalidConfigError("the lock of the state directory was not handed over")
    return Handover(
        payload=json.loads(content),
        life_fd=numbers.get(LIFE_FD, -1),
        _ready_fd=numbers.get(READY_FD, -1),
        secrets_fd=numbers.get(SECRETS_FD, -1),
    )


def _number(env: Mapping[str, str], name: str) -> int:
    text = env.get(name, "")
    if not text.isdecimal():
        raise InvalidConfigError(
            f"{name} is not set; this process is started by `runner local start`, "
            "`runner server` or `runner agent-runner`"
        )
    return int(text)
