"""What is measured against what: a goal, one reading of it, and the row that comes of several."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

NOISY_SHARE = 0.15
"""More of the machine than this taken by others makes a round worth little."""


class UnavailableError(Exception):
    """This host cannot do what a group measures."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One number of the runner with its limit and its aim."""

    id: str
    what: str
    must: float
    aim: float
    at_most: bool = True
    unit: str = "x"

    def holds(self, value: float, bound: float) -> bool:
        """Tell whether a value keeps to a bound."""
        return value <= bound if self.at_most else value >= bound

    def text(self, value: float) -> str:
        """Return a value with its unit."""
        return f"{value:.2f}{self.unit}" if self.unit in ("x", "%") else f"{value:.1f} {self.unit}"

    def bound(self, value: float) -> str:
        """Return a bound with its direction."""
        return f"{'<=' if self.at_most else '>='} {self.text(value)}"


@dataclass(frozen=True, slots=True)
class Reading:
    """One round's value, and the absolute numbers that it comes from."""

    value: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """The median of several rounds."""

    goal: Goal
    reading: Reading | None
    foreign: float = 0.0
    problem: str = ""

    @property
    def missed(self) -> bool:
        """Tell whether the limit is broken, or could not be measured for a reason that is ours."""
        if self.reading is None:
            return not self.problem.startswith("not available")
        return not self.goal.holds(self.reading.value, self.goal.must)

    @property
    def verdict(self) -> str:
        """Return ``MISSED``, ``ok``, ``ok, aim``, or what kept it from being measured."""
        if self.reading is None:
            return "FAILED" if self.missed else "unavailable"
        if self.missed:
            return "MISSED"
        return "ok, aim" if self.goal.holds(self.reading.value, self.goal.aim) else "ok"

    @property
    def note(self) -> str:
        """Return the absolute numbers, and a warning if others were busy."""
        noisy = f"noisy ({self.foreign:.0%} foreign)" if self.foreign > NOISY_SHARE else ""
        detail = self.reading.detail if self.reading else self.problem
        return "; ".join(part for part in (detail, noisy) if part)

    def document(self) -> dict[str, Any]:
        """Return the row as JSON holds it."""
        value = self.reading.value if self.reading else None
        return asdict(self.goal) | {
            "value": value,
            "verdict": self.verdict,
            "foreign": round(self.foreign, 3),
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to do, and where."""

    quick: bool
    root: Path
    """A temporary folder of this run, passable for the user that runs jobs."""

    def amount(self, full: int, quick: int) -> int:
        """Return how many of something to do."""
        return quick if self.quick else full


class Group:
    """Measurements that share an installation. ``prepare`` once, then ``round`` several times."""

    goals: ClassVar[tuple[Goal, ...]]

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def prepare(self, stack: ExitStack) -> None:
        """Start what the rounds need; the stack stops it."""

    def round(self) -> list[Reading]:
        """Measure everything once, floor and product in turn; one reading per goal."""
        raise NotImplementedError
