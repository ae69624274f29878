"""Brings the contents of an attempt's outputs to the server before the attempt is ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agent_runner.client import DaemonClient, Lease
from agent_runner.errors import ArtifactNotWrittenError, ServerRefusedError, ServerUnavailableError
from agent_runner.outcome import Outcome, OutputsRecord

MAX_REFUSALS = 5
"""How often a server may say that it cannot store an output before the attempt ends without: with the back-off, seconds."""


class OutputsUpload:
    """The outputs of one attempt on their way; ``run`` until it returns."""

    def __init__(self, client: DaemonClient, lease: Lease, folder: Path) -> None:
        self._client = client
        self._lease = lease
        self._folder = folder
        self._refusals = 0

    async def run(self, outcome: Outcome) -> Outcome:
        """Return the outcome after the server has all contents, or without outputs if it will never have them.

        What the server has already, from an earlier call or another job, is not sent.

        Raises:
            ServerUnavailableError, LeaseLostError, NotAdmittedError: As ``DaemonClient.finish``; it may be repeated.
        """
        files = {file.sha256: self._folder / file.sha256 for file in outcome.outputs.files}
        try:
            await self._client.store_contents(self._lease, files)
        except ArtifactNotWrittenError as error:
            self._refusals += 1
            if self._refusals < MAX_REFUSALS:
                raise ServerUnavailableError(str(error)) from error
            return _without_outputs(outcome, str(error))
        except ServerRefusedError as error:
            return _without_outputs(outcome, str(error))
        except OSError as error:
            reason = f"they cannot be read back on the agent-runner's host: {error.strerror}"
            return _without_outputs(outcome, reason)
        return outcome


def _without_outputs(outcome: Outcome, why: str) -> Outcome:
    count = len(outcome.outputs.files)
    text = f"none of {count} is kept: {why}"
    before = outcome.outputs.error
    return replace(outcome, outputs=OutputsRecord(error=f"{text}; {before}" if before else text))
