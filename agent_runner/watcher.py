"""Somebody who looks at the sandbox of an attempt right before its command and after it: ``runner parity``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sandbox.base import Sandbox


class Watcher(Protocol):
    """Runs commands of its own in the sandbox, one after the other. Used by one attempt."""

    async def before(self, sandbox: Sandbox, env: Mapping[str, str], cwd: str) -> None:
        """Look at the sandbox, with the sources in it, as the command will find it; called once.

        Args:
            sandbox: Of the attempt.
            env: Whole environment of the command, with secrets.
            cwd: Where it starts, as it sees it.

        Raises:
            SandboxError: The sandbox failed; so does the attempt.
        """
        ...

    async def after(self, sandbox: Sandbox) -> None:
        """Look at what the command has left; called once, if it has run. Raises as ``before``."""
        ...
