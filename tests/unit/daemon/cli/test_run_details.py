"""What a verbose run tells at its end."""

from __future__ import annotations

from agent_runner.outcome import (
    EndReason,
    LimitRecord,
    LogSummary,
    Outcome,
    OutputFile,
    OutputsRecord,
    SandboxRecord,
    SourceRecord,
)
from daemon.cli.run_details import run_details


def test_all_that_there_was() -> None:
    """A line for each; a bound in full, not as a power of ten."""
    outcome = Outcome(
        end_reason=EndReason.EXITED,
        exit_code=0,
        source=SourceRecord(commit="c" * 40),
        sandbox=SandboxRecord(
            kind="filesystem",
            tier="landlock",
            walls_not_held=("network",),
            limits=(LimitRecord("memory", 1 << 30, "cgroup"), LimitRecord("cpus", 1.5, "")),
        ),
        outputs=OutputsRecord(files=(OutputFile("a", "d" * 64, 3, 0o755),), error="b: is a link"),
        log=LogSummary(length=7),
    )
    assert run_details(outcome, 61.5) == [
        f"source: commit {'c' * 40}",
        "sandbox: filesystem/landlock",
        "walls not held: network",
        "bound: memory 1073741824, kept by cgroup",
        "bound: cpus 1.5, kept by nothing",
        f"output: a, 3 bytes, 0755, sha256 {'d' * 64}",
        "outputs not kept: b: is a link",
        "log: 7 bytes",
        "took 1m01s",
    ]
