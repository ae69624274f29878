"""Errors of the sandbox package. A command that failed is a result; these are machines that failed."""

from __future__ import annotations

from typing import ClassVar


class SandboxError(Exception):
    """Root of everything that this package raises on purpose."""

    reason: ClassVar[str] = "SANDBOX_FAILED"
    retryable: ClassVar[bool] = False
    never_began: bool = False
    """Whether a container engine or an image failed, and the command certainly did not begin; see ``container.failure``."""


class SandboxUnavailableError(SandboxError):
    """The host cannot give a sandbox as good as the one that was asked for."""

    reason: ClassVar[str] = "SANDBOX_UNAVAILABLE"


class SandboxBrokenError(SandboxError):
    """The sandbox could not be built, or broke while it was in use."""

    reason: ClassVar[str] = "SANDBOX_FAILED"
    retryable: ClassVar[bool] = True


class ImageMissingError(SandboxUnavailableError):
    """The image of a container is neither here nor to be had."""

    reason: ClassVar[str] = "IMAGE_MISSING"


class EngineUnusableError(SandboxUnavailableError):
    """There is a container engine, or its address, and it cannot be used from here."""


class EngineGoneError(SandboxBrokenError):
    """The container engine does not answer, or went away in the middle."""

    reason: ClassVar[str] = "ENGINE_GONE"


class CommandNotStartedError(SandboxError):
    """The request is impossible: no program, a bad environment, or an unusable working directory."""

    reason: ClassVar[str] = "COMMAND_NOT_STARTED"


class TransferRefusedError(SandboxError):
    """A path of an upload or download leaves the workspace, or names something that is no plain file."""

    reason: ClassVar[str] = "TRANSFER_REFUSED"
