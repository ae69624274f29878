"""P42 and P43: ``run-local``, alone and with a large tree to copy, against what does the same with nothing around it."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path

from benchmarks import floors
from benchmarks.goals import Goal, Group, Plan, Reading, UnavailableError
from benchmarks.installation import RUNNER, Installation

FOLDERS, FILES, FILE_BYTES = 200, 100, 50 << 10
"""20,000 files of 1 GB together, as the issue of the copy names them."""
QUICK_SHARE = 8


class OneShot(Group):
    """A job that does nothing, from the shell's prompt to the next; and one whose source is copied."""

    goals = (
        Goal("P42", "run-local of a no-op job, vs bwrap and a Python start", 1.5, 1.5),
        Goal(
            "P43",
            "the same with a tree of 20,000 files to copy, less the no-op, vs cp -a",
            1.3,
            1.0,
        ),
    )

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._tree = plan.root / "p43-tree"
        self._target = plan.root / "p43-copy"

    def prepare(self, stack: ExitStack) -> None:
        """Write the job files and the tree."""
        if shutil.which("bwrap") is None:
            raise UnavailableError("bwrap is not installed")
        installation = stack.enter_context(Installation(self.plan, start=False))
        self._env = installation.env
        stack.callback(shutil.rmtree, self._tree, ignore_errors=True)
        _write_tree(self._tree, self.plan.amount(FOLDERS, FOLDERS // QUICK_SHARE))
        self._none = self._job("none", "")
        self._copy = self._job("copy", f"source_type: copy\nsource_path: {self._tree}\n")
        self._run(self._none)

    def round(self) -> list[Reading]:
        """All in turn, several times; medians."""
        bare, none, cp, copy = [], [], [], []
        wrapped = (
            "bwrap",
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
            "--unshare-all",
        )
        for _ in range(self.plan.amount(5, 3)):
            floor = floors.command_ms((*wrapped, floors.TRUE), self._env)
            bare.append(floor + floors.command_ms((sys.executable, "-c", "pass"), self._env))
            none.append(self._run(self._none))
            command = ("cp", "-a", str(self._tree), str(self._target))
            cp.append(floors.command_ms(command, self._env))
            shutil.rmtree(self._target)
            copy.append(self._run(self._copy) - none[-1])
        ours, least = statistics.median(none), statistics.median(bare)
        copied, floor = statistics.median(copy), statistics.median(cp)
        return [
            Reading(ours / least, f"{ours:.0f} of {least:.0f} ms"),
            Reading(copied / floor, f"{copied / 1000:.2f} of {floor / 1000:.2f} s"),
        ]

    def _run(self, job: Path) -> float:
        return floors.command_ms((RUNNER, "run-local", "--quiet", "--file", str(job)), self._env)

    def _job(self, name: str, source: str) -> Path:
        path = self.plan.root / f"p42-{name}.yaml"
        path.write_text(f"job_command: [{floors.TRUE}]\n{source}")
        return path


def _write_tree(root: Path, folders: int) -> None:
    content = os.urandom(FILE_BYTES)
    for folder in range(folders):
        (root / f"d{folder}").mkdir(parents=True)
        for file in range(FILES):
            (root / f"d{folder}" / f"f{file}").write_bytes(content)
