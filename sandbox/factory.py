"""The one place where a kind of sandbox becomes a class."""

from __future__ import annotations

from pathlib import Path

from sandbox.base import SandboxProvider, Tier
from sandbox.errors import SandboxUnavailableError

FILESYSTEM = "filesystem"
SCRIPTED = "scripted"
AUTO = "auto"
KINDS = (AUTO, FILESYSTEM, SCRIPTED)


def open_provider(
    kind: str,
    *,
    root: Path | None = None,
    owner_label: str = "runner",
    tier: Tier | None = None,
    allow_plain: bool = False,
) -> SandboxProvider:
    """Return the provider of a kind. Called once per process, inside a running loop.

    Args:
        kind: ``auto``, ``filesystem`` or ``scripted``.
        root: Folder of the workspaces; needed by the kinds that keep them on this host.
        owner_label: Names this agent-runner, the same after a restart.
        tier: Exactly this tier, or None for the strongest that works.
        allow_plain: The operator's consent to no walls.

    Raises:
        SandboxUnavailableError: There is no such kind, or it needs a root.
    """
    # A backend is imported only when it is used.
    if kind in {AUTO, FILESYSTEM}:
        if root is None:
            raise SandboxUnavailableError(f"a sandbox of kind {kind} needs a folder for workspaces")
        from sandbox.filesystem.provider import FilesystemProvider  # noqa: PLC0415

        return FilesystemProvider(root, owner_label=owner_label, tier=tier, allow_plain=allow_plain)
    if kind == SCRIPTED:
        from sandbox.scripted import ScriptedProvider  # noqa: PLC0415

        return ScriptedProvider(owner_label=owner_label)
    raise SandboxUnavailableError(f"there is no sandbox of kind {kind!r}: use {', '.join(KINDS)}")
