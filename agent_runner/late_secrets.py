"""Takes the secrets that a job registers while it runs, over the socket of its sandbox."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.base import Sandbox
from sandbox.job_socket import FOLDER, Answer, Door, Listening, install
from sandbox.masking.commands import MAX_LATE_BYTES
from sandbox.masking.masker import Masker

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory


class LateSecrets:
    """The registrations of one attempt. A token keeps those out that reach the socket but are not of the job."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._token = secrets.token_urlsafe(24)

    async def open(self, sandbox: Sandbox, env: Mapping[str, str]) -> dict[str, str]:
        """Listen, and return the variables by which commands find the way.

        Args:
            sandbox: Before its first command.
            env: Of the command, so far.
        """
        door = await _open(sandbox, self.answer)
        library = f"{door.folder}/lib"
        found = {
            "PATH": f"{door.folder}/bin:{env['PATH']}",
            "PYTHONPATH": f"{library}:{env['PYTHONPATH']}" if env.get("PYTHONPATH") else library,
        }
        if door.socket:
            self._masker.add("RUNNER_MASK_TOKEN", self._token)
            found |= {"RUNNER_MASK_SOCKET": door.socket, "RUNNER_MASK_TOKEN": self._token}
        return found

    async def answer(self, line: bytes) -> bytes:
        """Answer one request, ``{"token", "add_mask": BASE64}``, when the value is hidden in all that follows."""
        error = await self._refusal(line)
        answer = {"ok": True} if error is None else {"ok": False, "error": error}
        return json.dumps(answer).encode()

    async def _refusal(self, line: bytes) -> str | None:
        try:
            request = json.loads(line)
            token, value = (
                str(request["token"]).encode(),
                base64.b64decode(request["add_mask"], validate=True),
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            return "the request is malformed"
        if not hmac.compare_digest(token, self._token.encode()):
            return "the token is not that of this job"
        if len(value) > MAX_LATE_BYTES:
            return f"it is longer than {MAX_LATE_BYTES} bytes"
        if not await asyncio.to_thread(self._register, value):
            return "it is too short or too common to be masked, or there are too many"
        return None

    def _register(self, value: bytes) -> bool:
        hidden = self._masker.add("runnerlib", value)
        self._masker.snapshot()
        return hidden


async def _open(sandbox: Sandbox, answer: Answer) -> Door:
    """Install the program, and listen where commands can reach this process: not from inside a container."""
    if isinstance(sandbox, Listening):
        return await sandbox.listen(answer)
    folder = await asyncio.to_thread(_installed)
    try:
        await sandbox.upload(Path(folder.name), "")
    finally:
        await asyncio.to_thread(folder.cleanup)
    return Door(folder=f"{sandbox.job_root}/{FOLDER}", socket="")


def _installed() -> TemporaryDirectory[str]:
    # Late: few jobs need it, and an agent-runner that rests is to be small.
    from tempfile import TemporaryDirectory  # noqa: PLC0415

    folder = TemporaryDirectory(prefix="runner-lib-")
    install(Path(folder.name))
    return folder
