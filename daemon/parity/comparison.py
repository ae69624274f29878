"""In what two runs of a job differ, and in what they differ by design: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from daemon.parity.observation import MISSING, Observation

NO_VERDICT = frozenset({"SANDBOX_FAILED", "IMAGE_MISSING", "ENGINE_GONE"})
"""Ends that say nothing of the job: there was no sandbox to judge it in."""
RUNNERLIB_VARIABLES = frozenset({"RUNNER_MASK_SOCKET", "RUNNER_MASK_TOKEN", "PYTHONPATH"})
WITHHELD = "RUNNER_WITHHELD"
NOT_COMPARED = (
    "the text of the log: a job may print times and numbers of processes",
    "what is in .git: it holds times and inodes",
    "files outside code_dir",
    "gates: this version has none",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not alike."""

    what: str
    """``end_reason``, ``exit_code``, ``working_dir``, ``variable``, ``source``, ``change`` or ``output``."""
    name: str = ""
    """Of the variable or file."""
    filesystem: Any = None
    container: Any = None
    why: str = ""
    """For what differs by design: the design."""

    def text(self) -> str:
        """Return it in words."""
        about = f"{self.what} {self.name}".rstrip()
        sides = f"filesystem {_said(self.filesystem)}, container {_said(self.container)}"
        return f"{about}: {sides}" + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came out."""

    differences: tuple[Difference, ...]
    by_design: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        """Tell whether the verdicts are the same."""
        return not self.differences


def compare(here: Observation, there: Observation, container_only: tuple[str, ...]) -> Comparison:
    """Compare a run in the filesystem sandbox with one in a container.

    Args:
        here: The first.
        there: The second.
        container_only: Variables that the job has for containers only.
    """
    by_design: list[Difference] = []
    differences = [
        Difference(what=what, filesystem=getattr(here, what), container=getattr(there, what))
        for what in ("end_reason", "exit_code", "commit")
        if getattr(here, what) != getattr(there, what)
    ]
    if here.variables and there.variables:
        differences += _places(here, there, by_design)
        differences += _variables(here, there, container_only, by_design)
        differences += _files("source", here.sources, there.sources)
    if here.outputs is not None and there.outputs is not None:
        differences += _files("output", here.outputs, there.outputs)
    elif here.changes is not None and there.changes is not None:
        differences += _files("change", here.changes, there.changes)
    return Comparison(differences=tuple(differences), by_design=tuple(by_design))


def _places(
    here: Observation, there: Observation, by_design: list[Difference]
) -> Iterator[Difference]:
    if here.working_dir == there.working_dir:
        return
    alike = _below_root(here) == _below_root(there)
    why = f"the {here.tier} tier cannot mount: /job is {here.job_root} there" if alike else ""
    found = Difference(
        what="working_dir", filesystem=here.working_dir, container=there.working_dir, why=why
    )
    if alike:
        by_design.append(found)
    else:
        yield found


def _below_root(seen: Observation) -> str:
    return seen.working_dir.removeprefix(seen.job_root)


def _variables(
    here: Observation,
    there: Observation,
    container_only: tuple[str, ...],
    by_design: list[Difference],
) -> Iterator[Difference]:
    for name in sorted({*here.variables} ^ {*there.variables}):
        is_here = name in here.variables
        why = ""
        if name in RUNNERLIB_VARIABLES and is_here:
            why = "runnerlib and its socket are in reach of the filesystem sandbox only"
        elif name == "PWD" and is_here:
            why = "bubblewrap sets it"
        elif (name in container_only and not is_here) or (name == WITHHELD and container_only):
            why = "sandbox.container_only"
        elif not is_here and name in there.of_sandbox:
            why = "the image sets it"
        found = Difference(
            what="variable",
            name=name,
            filesystem="set" if is_here else MISSING,
            container=MISSING if is_here else "set",
            why=why,
        )
        if why:
            by_design.append(found)
        else:
            yield found


def _files(what: str, here: Mapping[str, str], there: Mapping[str, str]) -> Iterator[Difference]:
    for name in sorted({*here, *there}):
        if here.get(name) != there.get(name):
            yield Difference(
                what=what,
                name=name,
                filesystem=here.get(name, "unchanged" if what == "change" else MISSING),
                container=there.get(name, "unchanged" if what == "change" else MISSING),
            )


def _said(value: Any) -> str:
    return "none" if value is None or value == "" else str(value)
