"""What one attempt hides of all that it says: its log, its messages, and the commands that a person is shown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from agent_runner.job_spec import JobSpec
from agent_runner.kept_maskers import KeptMaskers
from sandbox.base import LiveProcess
from sandbox.masking.commands import CommandStream
from sandbox.masking.floors import MIN_DERIVED_BYTES
from sandbox.masking.masker import Masker
from sandbox.masking.stream import FailClosed, Stream

logger = logging.getLogger(__name__)

MAX_COMMAND_CHARS = 200
"""Of a command line that is shown to a person (job.proto)."""
MIN_THREAD_SECRET_CHARS = 2 << 10
"""Fewer of all secrets together are spelled in some milliseconds."""

_kept = KeptMaskers()


class JobMasking:
    """The masker of one attempt. Made with the attempt; its coroutines are awaited one after the other."""

    def __init__(self, spec: JobSpec) -> None:
        """Begin without secrets."""
        self._mode = spec.masking
        self.masker = Masker(formats=not spec.masking)

    async def hide(self, secrets: Mapping[str, str], kept: Collection[str]) -> None:
        """Hide the values of the job's secrets in all that is said from here on. Called once, first.

        Args:
            secrets: Values by the names that a warning may say.
            kept: Values of them that this process has for as long as it lives anyway; only these are remembered
                spelled, so that the next job does not wait for it.
        """
        known = frozenset(kept)
        await _aside(secrets.values(), lambda: self._register(secrets, known))

    async def presume(self, values: Collection[str]) -> None:
        """Hide what is only likely to be a secret, if it is long enough."""
        await _aside(values, lambda: self._register_presumed(values))

    def log_stream(self) -> Stream:
        """Return what the output of the command passes. Called once."""
        if self._mode == "off":
            return FailClosed(Masker(formats=False).stream())  # lets everything pass
        return FailClosed(CommandStream(self.masker.stream(), self.masker.add))

    def masked(self, process: LiveProcess) -> LiveProcess:
        """Return a process as a person may see it."""
        # Masked before it is cut: a half of a secret is not found any more.
        command = self.masker.mask_text(process.command)[:MAX_COMMAND_CHARS]
        return replace(process, command=sendable(command))

    def _register(self, secrets: Mapping[str, str], known: frozenset[str]) -> None:
        if known:
            self.masker = _kept.of(known).copy(formats=not self._mode)
        for name, value in secrets.items():
            if not self.masker.add(name, value):
                logger.warning(
                    "a secret is too short or too common to be masked",
                    extra={"action": "secret_not_masked", "secret": name},
                )
        self.masker.snapshot()

    def _register_presumed(self, values: Collection[str]) -> None:
        for value in values:
            self.masker.add("", value, floor=MIN_DERIVED_BYTES)
        self.masker.snapshot()


def sendable(text: str) -> str:
    """Return text that can be encoded: names from a file system may hold bytes that are no characters."""
    return text.encode("utf-8", "replace").decode()


async def _aside(values: Collection[str], work: Callable[[], None]) -> None:
    """Do what takes long for many or long values on a thread, so that other attempts get on."""
    if sum(map(len, values)) < MIN_THREAD_SECRET_CHARS:
        work()
    else:
        await asyncio.to_thread(work)
