"""What ``run-local --verbose`` tells of a run beside its end: what really was there, and what was kept."""

from __future__ import annotations

from agent_runner.outcome import Outcome
from daemon.cli.output import seconds_text


def run_details(outcome: Outcome, took_s: float) -> list[str]:
    """Return the lines; called once per run, after its end. Texts of the job in them are masked, but not yet printable."""
    sandbox, source = outcome.sandbox, outcome.source
    lines = [
        f"{name}: commit {commit}"
        for name, commit in (("source", source.commit), ("trusted source", source.ci_commit))
        if commit
    ]
    if sandbox.tier:
        lines.append(f"sandbox: {sandbox.kind}/{sandbox.tier}")
    if sandbox.walls_not_held:
        lines.append(f"walls not held: {', '.join(sandbox.walls_not_held)}")
    lines += [
        f"bound: {name} {value:.15g}, kept by {by or 'nothing'}"
        for name, value, by in sandbox.limits
    ]
    lines += [
        f"output: {file.name}, {file.size} bytes, {file.mode:04o}, sha256 {file.sha256}"
        for file in outcome.outputs.files
    ]
    if outcome.outputs.error:
        lines.append(f"outputs not kept: {outcome.outputs.error}")
    return [*lines, f"log: {outcome.log.length} bytes", f"took {seconds_text(took_s)}"]
