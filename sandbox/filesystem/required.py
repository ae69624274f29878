"""Whether a sandbox holds what a job will not run without."""

from __future__ import annotations

from sandbox.base import SandboxInfo
from sandbox.errors import SandboxUnavailableError

_FIXES = {
    "network": "use network: off or a list of hosts with the tier bwrap, or install pasta (package passt)",
    "memory": "needs a control group: run as root, or with systemd-run --user --scope -p Delegate=yes",
    "cpus": "needs a control group: run as root, or with systemd-run --user --scope -p Delegate=yes",
    "pids": "needs a control group or the tier bwrap",
}


def check_nested(nested: str) -> None:
    """Refuse a job that wants an engine of containers inside: that is for containers. Called once per sandbox.

    Raises:
        SandboxUnavailableError: It does.
    """
    if nested:
        raise SandboxUnavailableError(
            f"the job asks for sandbox.nested = {nested}, which only a container can have"
        )


def check_required(require: frozenset[str], info: SandboxInfo) -> None:
    """Check what is required against what a sandbox would be. Called once per sandbox, before it is made.

    Args:
        require: Names of walls and limits.
        info: What the sandbox would be.

    Raises:
        SandboxUnavailableError: Something is not held; the text names all of it, and what to do.
    """
    if not require:
        return
    missing = {str(wall) for wall in info.walls_not_held}
    missing |= {str(kept.limit) for kept in info.limits if not kept.held}
    if lacking := sorted(require & missing):
        told = "; ".join(f"{name}: {_FIXES[name]}" if name in _FIXES else name for name in lacking)
        raise SandboxUnavailableError(
            f"the job requires what the tier {info.tier.label} does not hold here: {told}"
        )
