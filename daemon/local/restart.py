"""``runner local restart``: the old daemon stops everything and starts its successor, secrets included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from daemon.errors import StartFailedError
from daemon.local.control_client import ControlClient
from daemon.local.start import StartResult
from daemon.local.status import status_local
from daemon.paths import StateDir

RESTART_BOUND_S = 60.0
"""Longest silence between two progress lines: a drain says now and then that it goes on."""

Report = Callable[[dict[str, Any]], None]


def restart_local(  # noqa: PLR0913 - one use-case, told everything at once
    state: StateDir,
    config: Mapping[str, Any],
    secrets: Mapping[str, str],
    report: Report,
    *,
    store: Mapping[str, str] | None = None,
    drain_timeout_s: float | None = None,
    now: bool = False,
) -> StartResult:
    """Replace the daemon and its children by new ones, which keep the secrets of the old.

    The lock is handed over, so that nobody can start another instance in between. Only configuration and
    secrets travel, never a command or an environment: another process of this user must not be able
    to have its own program started with the secrets.

    Args:
        state: Whose daemon.
        config: What is to differ from what the old one runs with, by the names of ``LocalConfig``.
        secrets: Added to those that the daemon holds; usually empty.
        report: Called with each progress line as it comes, of the stop and of the start.
        store: The secret store and its key; None keeps what the daemon holds.
        drain_timeout_s: How long running attempts may go on; None takes the daemon's own setting.
        now: Cancel running attempts at once.

    Raises:
        NotRunningError: No daemon runs.
        StartFailedError: The old one could not stop or the new one not start; in the second case
            nothing is left running.
    """
    request = {
        "op": "restart",
        "config": dict(config),
        "secrets": dict(secrets),
        "store": dict(store or {}),
        "drain_timeout_s": drain_timeout_s,
        "now": now,
    }
    _follow(state, request, report)
    return StartResult(already=False, status=status_local(state))


def _follow(state: StateDir, request: Mapping[str, Any], report: Report) -> None:
    """Report every line of the stop and of the start; return when the successor has started."""
    last: dict[str, Any] = {}
    with ControlClient(state, timeout_s=RESTART_BOUND_S) as client:
        try:
            for last in client.ask(request):
                report(last)
                if "started" in last or "failed" in last or "stopped" in last:
                    break
        except OSError as error:
            problem = f"the daemon went silent during the restart ({error})"
            raise StartFailedError(problem) from error
    if not last.get("started"):
        survivors = "; ".join(last.get("survivors", ()))
        problem = last.get("failed") or survivors or "the daemon went away"
        raise StartFailedError(f"the restart failed: {problem}")
