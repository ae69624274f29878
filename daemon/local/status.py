"""What runs, as ``runner local status`` shows it. Imports neither asyncio nor grpc."""

from __future__ import annotations

from typing import Any

from daemon.errors import NotRunningError
from daemon.local.control_client import ControlClient
from daemon.paths import StateDir

_INTERNAL = ("phase", "secret_store")


def status_local(state: StateDir) -> dict[str, Any]:
    """Return mode, endpoints, processes and version of the running daemon (DESIGN §11).

    Raises:
        NotRunningError: No daemon answers; the text names children that are still there.
    """
    return shown(query_status(state))


def shown(status: dict[str, Any]) -> dict[str, Any]:
    """Return what of a daemon's answer people and programs see; the rest is between the commands and the daemon."""
    return {name: value for name, value in status.items() if name not in _INTERNAL}


def query_status(state: StateDir) -> dict[str, Any]:
    """Return the same with ``phase``: starting, running or stopping, and ``secret_store``: its path and key's header.

    Raises:
        NotRunningError: As ``status_local``.
    """
    try:
        with ControlClient(state) as client:
            for status in client.ask({"op": "status"}):
                return status
    except NotRunningError:
        _explain_leftovers(state)
        raise
    except OSError as error:
        raise NotRunningError(f"the daemon does not answer ({error})") from error
    raise NotRunningError("the daemon went away while it was asked")


def _explain_leftovers(state: StateDir) -> None:
    # Not for a running daemon.
    from daemon.local.identities import living_processes, refuse_foreground  # noqa: PLC0415

    left = living_processes(state)
    if "daemon" in left:
        raise NotRunningError(
            f"the daemon with pid {left['daemon'].pid} does not answer; it is just starting or hangs"
        ) from None
    if left:
        refuse_foreground(left)
        names = ", ".join(f"{name} pid {identity.pid}" for name, identity in left.items())
        raise NotRunningError(
            f"the daemon is not running, but these still are: {names}; `runner local stop` ends them"
        ) from None
