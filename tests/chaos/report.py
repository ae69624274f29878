"""The table of a long run."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.campaign import Campaign
from tests.chaos.installation import PROCESSES
from tests.chaos.oracle import Verdict

GAPS = ("has a log that", "a gap")
DOUBLES = ("times", "beside", "exited, and another one followed", "different submits")


@dataclass
class Report:
    """Rows of what was counted, and everything that was objected to."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    objections: list[str] = field(default_factory=list)

    def add(self, name: str, value: object) -> None:
        self.rows.append((name, str(value)))

    def object(self, part: str, objections: list[str]) -> None:
        """Keep objections, and say them at once: a run that is broken off has said them then."""
        for objection in objections:
            self.objections.append(f"{part}: {objection}")
            print(f"objection: {self.objections[-1]}", flush=True)

    def text(self) -> str:
        width = max(len(name) for name, _ in self.rows)
        lines = [f"{name:<{width}}  {value}" for name, value in self.rows]
        lines.append(f"{'objections':<{width}}  {len(self.objections)}")
        return "\n".join([*lines, *(f"  - {objection}" for objection in self.objections)])


def describe_campaign(report: Report, run: Campaign, verdict: Verdict, seconds: float) -> None:
    """Add the rows of a random run."""
    installation = run.installation
    kills = installation.kills
    report.add("jobs", len(run.jobs))
    report.add("jobs by kind", counted(Counter(job.kind for job in run.jobs)))
    report.add("jobs by end", counted(verdict.states))
    by_process = ", ".join(f"{process} {kills[process]}" for process in PROCESSES)
    report.add("kill -9", f"{kills.total()}: {by_process}")
    pairs = sum(len(strike.victims) > 1 for strike in run.plan)
    report.add("  of them in pairs", 2 * pairs)
    frozen = Counter(
        f"{strike.victims[0]} for {strike.frozen_s:g} s" for strike in run.plan if strike.frozen_s
    )
    report.add("frozen and thawed", counted(frozen))
    report.add("starts of the installation", installation.starts)
    report.add("executions seen", verdict.runs)
    report.add("attempts lost", verdict.lost)
    report.add("attempts given back", verdict.given_back)
    actions = logged_actions(installation.state / "logs")
    for row, action in (
        ("results replayed from a spool", "leftover_delivered"),
        ("leftovers not wanted", "leftover_dropped"),
        ("leases lost under a live command", "lease_lost"),
    ):
        report.add(row, actions[action])
    report.add("calls repeated", installation.client.repeats)
    report.add(
        "watches resumed",
        f"{installation.watcher.resumed}, {len(installation.watcher.events)} events",
    )
    report.add("executions beside a frozen one", verdict.overlaps)
    report.add("duplicate side effects", count_of(verdict.objections, DOUBLES))
    report.add("log gaps and repeats", count_of(verdict.objections, GAPS))
    report.add("seconds", round(seconds))
    report.object("random kills", verdict.objections)


def counted(counter: Counter[str]) -> str:
    """Return a count of things as one line, the most frequent first."""
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "none"


def count_of(objections: list[str], marks: tuple[str, ...]) -> int:
    """Count the objections that have one of some marks."""
    return sum(any(mark in objection for mark in marks) for objection in objections)


def logged_actions(folder: Path) -> Counter[str]:
    """Count what the processes have logged, by action."""
    actions: Counter[str] = Counter()
    for path in folder.iterdir():
        for line in path.read_text(errors="replace").splitlines():
            try:
                actions[str(json.loads(line).get("action"))] += 1
            except (ValueError, AttributeError):
                actions["not a record"] += 1
    return actions
