"""Where the values of an attempt's references come from: what is at hand, and whoever can be asked for the rest."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from agent_runner.errors import SecretSourceGoneError
from agent_runner.secret_refs import SecretRef, SecretValues

MAX_ANSWER_BYTES = 64 << 20

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Found(NamedTuple):
    """The answer to a question; what was not found is not in it."""

    values: SecretValues
    why_missing: str = ""
    """What a person can do about the rest; empty where the store simply has no such key."""


class SecretSource(Protocol):
    """What an attempt needs to fill in its references. Used by many attempts at once, on one event loop."""

    @property
    def at_hand(self) -> SecretValues:
        """Return the values that cost no question; looked at once per attempt that has references."""
        ...

    async def ask(self, refs: Sequence[SecretRef]) -> Found:
        """Return the values of references that are not at hand; called once per attempt, and only if there are any.

        May be cancelled. A reference without a value is no error.

        Raises:
            SecretSourceGoneError: Nobody answers any more.
        """
        ...


class ClosableSource(SecretSource, Protocol):
    """A source of a long-lived process."""

    def close(self) -> None:
        """Ask no more; called once, at the end of the process."""
        ...


class GivenSecrets:
    """Values that were all found beforehand, as ``run-local`` does."""

    def __init__(self, values: SecretValues, why_missing: str = "") -> None:
        self.at_hand = values
        self._why_missing = why_missing

    async def ask(self, refs: Sequence[SecretRef]) -> Found:
        """Return nothing: what is not at hand was not found."""
        return Found({}, self._why_missing)


class DaemonSecrets:
    """The gathered values, and the daemon for those of the store.

    One JSON line per question, ``{"number", "refs": [[path, key], …]}``, and one per answer, ``{"number", "values":
    [[path, key, value], …], "why_missing"}``. The daemon looks at the store for every question, so a value that was
    set a moment ago is found; nothing is kept here.
    """

    def __init__(self, gathered: SecretValues, fd: int) -> None:
        """Take the descriptor of the inherited socket to the daemon."""
        self.at_hand = gathered
        self._fd = fd
        self._streams: asyncio.Task[_Streams] | None = None
        self._turn = asyncio.Lock()
        self._number = 0

    async def ask(self, refs: Sequence[SecretRef]) -> Found:
        """Ask the daemon. Questions are answered one after the other: all but the first of them from its memory."""
        async with self._turn:
            self._number += 1
            question = {"number": self._number, "refs": [list(ref) for ref in refs]}
            try:
                answer = await self._exchange(question)
            except (OSError, ValueError) as error:  # the second: no JSON, or a line without end
                raise SecretSourceGoneError("the daemon does not answer any more") from error
        values = {SecretRef(path, key): value for path, key, value in answer["values"]}
        return Found(values, answer["why_missing"])

    def close(self) -> None:
        """Ask no more; called once, at the end of the process."""
        if self._streams is not None and self._streams.done():
            self._streams.result()[1].close()

    async def _exchange(self, question: dict[str, Any]) -> dict[str, Any]:
        if self._streams is None:
            self._streams = asyncio.ensure_future(self._open())
        # A question that is given up must not take the only socket with it.
        reader, writer = await asyncio.shield(self._streams)
        writer.write(json.dumps(question).encode() + b"\n")
        while line := await reader.readline():
            answer: dict[str, Any] = json.loads(line)
            # An earlier number answers a question whose attempt was stopped meanwhile.
            if answer["number"] == question["number"]:
                return answer
        raise ConnectionError("the daemon has closed its end")

    async def _open(self) -> _Streams:
        channel = socket.socket(fileno=self._fd)
        return await asyncio.open_connection(sock=channel, limit=MAX_ANSWER_BYTES)
