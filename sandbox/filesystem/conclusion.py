"""What becomes of a command that has ended: from a status, and the first bytes that were held back, to a result or an error."""

from __future__ import annotations

from sandbox.base import ExecRequest, ExecResult
from sandbox.ended_command import EndedCommand
from sandbox.errors import SandboxBrokenError, SandboxError
from sandbox.filesystem import bubblewrap, verdict
from sandbox.filesystem.bubblewrap_status import BubblewrapStatus
from sandbox.filesystem.call_list import MAGIC, failed_step
from sandbox.output import OutputPump

HELD_PREFIXES = (MAGIC, *bubblewrap.HELD_PREFIXES)
"""How the output begins of what did not reach the command."""


def conclude_bubblewrap(
    request: ExecRequest,
    status: BubblewrapStatus,
    pump: OutputPump,
    _: int,
    killed: bool,  # a callback
) -> ExecResult:
    """Conclude from what bubblewrap reported; its own status says less."""
    status.drain()
    if status.exit_code is not None:
        return _concluded(status.exit_code, pump)
    # It reports no exit code of a command that it could not execute.
    if not killed and verdict.launch_failure(verdict.EXEC_FAILED, pump.held) is not None:
        return _concluded(verdict.EXEC_FAILED, pump)
    return _unreached(request, pump, killed=killed)


def conclude_parked(
    request: ExecRequest,
    status: BubblewrapStatus,
    pump: OutputPump,
    _: int,
    killed: bool,  # a callback
) -> ExecResult:
    """Conclude the same of a command that was not what bubblewrap executed, but what the program behind it became."""
    status.drain()
    if status.exit_code is None:
        return _unreached(request, pump, killed=killed)
    return conclude_restricted(request, pump, status.exit_code, killed)


def conclude_restricted(
    request: ExecRequest, pump: OutputPump, status: int, _: bool
) -> ExecResult:  # a callback
    """Conclude from the status of the command itself, which the trampoline has become, or not."""
    step = failed_step(pump.held) if status == verdict.NOT_FOUND else None
    if step is not None:
        return _not_begun(verdict.not_begun(*step, request), pump)
    return _concluded(status, pump)


def _unreached(request: ExecRequest, pump: OutputPump, *, killed: bool) -> ExecResult:
    """Conclude that bubblewrap itself has failed, or was killed before it got anywhere."""
    step = None if killed else failed_step(pump.held)
    if step is not None:
        return _not_begun(verdict.without_bubblewrap(*step, request), pump)
    outcome = verdict.unreached(killed=killed, held=pump.take_held())
    if isinstance(outcome, SandboxError):
        raise outcome
    return outcome


def _not_begun(outcome: tuple[ExecResult, bytes] | SandboxError, pump: OutputPump) -> ExecResult:
    pump.take_held()
    if isinstance(outcome, SandboxError):
        raise outcome
    result, line = outcome
    pump.inject(line)
    return result


def _concluded(status: int, pump: OutputPump) -> ExecResult:
    held = pump.held
    if not held:  # nothing in front of the command has said why it did not come to it
        return verdict.result_of(status)
    unlimited = verdict.limits_failure(status, held)
    if unlimited is not None:
        pump.take_held()
        raise unlimited
    failure = verdict.launch_failure(status, held)
    return verdict.result_of(status) if failure is None else _not_begun(failure, pump)


def not_spawned(error: OSError | SandboxError) -> EndedCommand:
    """Report what this host has run out of; the command itself has not been looked at yet."""
    if isinstance(error, OSError):
        error = SandboxBrokenError(f"the command could not be spawned: {error}")
    return EndedCommand(error)
