"""What the executor does for the outputs of an attempt: collects them, and says in the log what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from agent_runner.attempt_control import AttemptControl, StopReason
from agent_runner.job_spec import JobSpec
from agent_runner.outcome import OutputsRecord
from agent_runner.output_patterns import Patterns
from agent_runner.outputs.collection import (
    CANCELLED_SECONDS,
    MAX_SECONDS,
    Bounds,
    OutputsTaker,
    collect,
    deadline,
)
from agent_runner.outputs.staging import StagedOutputs
from agent_runner.outputs_spec import OutputsPlace
from sandbox.base import Sandbox


class Collected(NamedTuple):
    """What came of it."""

    record: OutputsRecord
    lines: list[str]
    """For the log; masked."""
    cut_short: bool
    """Somebody wanted the attempt to end, or it took too long."""


async def collect_outputs(
    sandbox: Sandbox,
    spec: JobSpec,
    place: OutputsPlace,
    mask: Callable[[str], str],
    control: AttemptControl,
) -> Collected:
    """Collect the outputs of one attempt; called once, after its command has ended.

    Args:
        sandbox: Where the command ran.
        spec: What was asked for.
        place: Where contents are put, and how many.
        mask: Hides secrets in a text.
        control: Says whether somebody wants the attempt to end.
    """
    before = control.reason
    seconds = MAX_SECONDS if before is None else CANCELLED_SECONDS
    taker = OutputsTaker(
        patterns=Patterns.of(spec.outputs.paths),
        bounds=Bounds.of(place, spec.outputs),
        staged=StagedOutputs(place.folder),
        mask=mask,
        ended=deadline(seconds, lambda: _more_urgent(control, before)),
    )
    record = await collect(sandbox, spec, taker)
    return Collected(record, list(_lines(record, taker)), taker.cut_short)


def _more_urgent(control: AttemptControl, before: StopReason | None) -> bool:
    reason = control.reason
    return reason is not None and (before is None or reason > before)


def _lines(record: OutputsRecord, taker: OutputsTaker) -> Iterator[str]:
    for pattern in taker.patterns.unmet():
        yield taker.mask(f"runner: outputs: no file matches {pattern!r}")
    if record.error:
        yield f"runner: outputs: not kept: {record.error}"
