"""The one place where a kind of sandbox becomes a class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sandbox.base import SandboxProvider, Tier
from sandbox.container.settings import ContainerSettings
from sandbox.errors import SandboxUnavailableError

FILESYSTEM = "filesystem"
CONTAINER = "container"
SCRIPTED = "scripted"
AUTO = "auto"
KINDS = (AUTO, FILESYSTEM, CONTAINER, SCRIPTED)
KIND_OF_MODE = {"local": FILESYSTEM, "cloud": CONTAINER}
"""The one place where the mode decides anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """What ``open_configured`` makes a provider of: the arguments of ``open_kinds``."""

    kind: str
    root: Path
    owner_label: str
    tier: Tier | None = None
    allow_plain: bool = False
    container: ContainerSettings
    warm_slots: int = 0


def kind_of_mode(mode: str) -> str:
    """Return the kind of sandbox that ``MODE`` stands for.

    Raises:
        SandboxUnavailableError: There is no such mode.
    """
    kind = KIND_OF_MODE.get(mode)
    if kind is None:
        raise SandboxUnavailableError(f"there is no mode {mode!r}: use {', '.join(KIND_OF_MODE)}")
    return kind


def open_configured(config: SandboxConfig) -> SandboxProvider:
    """Return the provider of a configuration; as ``open_kinds``."""
    return open_kinds(
        config.kind,
        root=config.root,
        owner_label=config.owner_label,
        tier=config.tier,
        allow_plain=config.allow_plain,
        container=config.container,
        warm_slots=config.warm_slots,
    )


def open_kinds(  # noqa: PLR0913  # the parts of each kind, by name
    kind: str,
    *,
    root: Path,
    owner_label: str,
    tier: Tier | None = None,
    allow_plain: bool = False,
    container: ContainerSettings | None = None,
    warm_slots: int = 0,
) -> SandboxProvider:
    """Return a provider of all kinds that a job can ask for; as ``open_provider``, and ``kind`` is for jobs that ask for none.

    Raises:
        SandboxUnavailableError: There is no such kind.
    """
    kind = FILESYSTEM if kind == AUTO else kind
    settings = container or ContainerSettings()
    opener = partial(
        open_provider,
        root=root,
        owner_label=owner_label,
        tier=tier,
        allow_plain=allow_plain,
        container=settings,
        warm_slots=warm_slots,
    )
    if kind not in {FILESYSTEM, CONTAINER}:
        return opener(kind)
    from sandbox.several_kinds import SeveralKinds  # noqa: PLC0415

    return SeveralKinds(
        kind,
        {each: partial(opener, each) for each in (FILESYSTEM, CONTAINER)},
        root,
        settings.engine.removeprefix("unix://"),
    )


def open_provider(  # noqa: PLR0913  # the parts of each kind, by name
    kind: str,
    *,
    root: Path | None = None,
    owner_label: str = "runner",
    tier: Tier | None = None,
    allow_plain: bool = False,
    container: ContainerSettings | None = None,
    warm_slots: int = 0,
) -> SandboxProvider:
    """Return the provider of a kind. Called once per process, inside a running loop.

    Args:
        kind: ``auto``, ``filesystem``, ``container`` or ``scripted``.
        root: Folder of the workspaces; needed by the kinds that keep them on this host.
        owner_label: Names this agent-runner, the same after a restart.
        tier: Exactly this tier, or None for the strongest that works.
        allow_plain: The operator's consent to no walls.
        container: Engine and image, for containers.
        warm_slots: How many sandboxes are built ahead, by a kind and a tier that gain by it.

    Raises:
        SandboxUnavailableError: There is no such kind, or it needs a root.
    """
    # A backend is imported only when it is used.
    if kind in {AUTO, FILESYSTEM}:
        if root is None:
            raise SandboxUnavailableError(f"a sandbox of kind {kind} needs a folder for workspaces")
        from sandbox.filesystem.provider import FilesystemProvider  # noqa: PLC0415

        return FilesystemProvider(
            root,
            owner_label=owner_label,
            tier=tier,
            allow_plain=allow_plain,
            warm_slots=warm_slots,
        )
    if kind == CONTAINER:
        from sandbox.container.provider import ContainerProvider  # noqa: PLC0415

        return ContainerProvider(
            container or ContainerSettings(),
            owner_label=owner_label,
            state_folder="" if root is None else str(root),
        )
    if kind == SCRIPTED:
        from sandbox.scripted import ScriptedProvider  # noqa: PLC0415

        return ScriptedProvider(owner_label=owner_label)
    raise SandboxUnavailableError(f"there is no sandbox of kind {kind!r}: use {', '.join(KINDS)}")
