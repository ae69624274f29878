"""The control groups of one agent-runner: what they can keep here, making them, and removing what a dead one left."""

from __future__ import annotations

import itertools
import logging
import re
from pathlib import Path

from sandbox.bounds.control_group import (
    ControlGroup,
    Group,
    GroupV1,
    GroupV2,
    remove_group,
)
from sandbox.bounds.hierarchies import (
    CONTROLLERS,
    Hierarchy,
    enable,
    folders_named,
    host_hierarchies,
)
from sandbox.limits import Keeper, Limit, Limits

PREFIX = "runner."
"""How the folder begins that holds the groups of one agent-runner; its owner's label follows."""
_SAFE = re.compile(r"[^A-Za-z0-9_-]")

logger = logging.getLogger(__name__)


class ControlGroups:
    """Made per provider; touches nothing before the first bound that needs a group. Used on one event loop."""

    def __init__(self, owner_label: str, hierarchies: list[Hierarchy] | None = None) -> None:
        """Remember whose they are.

        Args:
            owner_label: Names the agent-runner, the same after a restart.
            hierarchies: Where groups may be made; None looks at the host.
        """
        self._folder = _folder_of(owner_label)
        self._known = hierarchies
        self._tops: list[Path] | None = None
        self._numbers = itertools.count(1)

    def keepers(self) -> dict[Limit, Keeper]:
        """Return which bounds can be kept here by which version. Called for the first sandbox with bounds."""
        if self._tops is None:
            self._open()
        return {
            limit: hierarchy.keeper
            for hierarchy in self._hierarchies()
            for limit in hierarchy.limits
        }

    def create(self, name: str, limits: Limits, extra_pids: int = 0) -> ControlGroup | None:
        """Make the groups that keep what can be kept of the bounds; None if that is nothing. Takes 0.2 ms.

        Args:
            name: Of the sandbox; letters, digits and dashes.
            limits: The bounds.
            extra_pids: Processes of ours that are in the group beside those of the job.

        Raises:
            OSError: The kernel refused.
        """
        try:
            return self._create(name, limits, extra_pids)
        except FileNotFoundError:  # somebody has removed the folder of all groups
            self._tops = None
            return self._create(name, limits, extra_pids)

    def _create(self, name: str, limits: Limits, extra_pids: int) -> ControlGroup | None:
        asked = {limit for limit in limits.asked() if limit in CONTROLLERS}
        keepers = {limit: by for limit, by in self.keepers().items() if limit in asked}
        if not keepers:
            return None
        folder = f"{name}.{next(self._numbers)}"
        groups: list[Group] = []
        try:
            for hierarchy in self._hierarchies():
                if keeps := hierarchy.limits & asked:
                    groups.append(self._group(hierarchy, folder, keeps))
                    groups[-1].bound(limits, extra_pids)
        except OSError:
            for group in groups:
                remove_group(group.path)
            raise
        return ControlGroup(groups, keepers)

    def reap(self) -> list[str]:
        """Remove the groups that an earlier process of this owner left, with what is in them; return their sandboxes' names."""
        names = set()
        for top in folders_named(self._folder):
            for path in _below(top):
                names.add(path.name.rpartition(".")[0])
                _try_remove(path)
            _try_remove(top)
        return sorted(names)

    def close(self) -> None:
        """Remove the folder of all groups, if it was made. Idempotent."""
        for top in self._tops or []:
            for path in _below(top):
                _try_remove(path)
            _try_remove(top)
        self._tops = None

    def _hierarchies(self) -> list[Hierarchy]:
        if self._known is None:
            self._known = host_hierarchies()
        return self._known

    def _open(self) -> None:
        """Make the folder of all groups in each tree; a tree that refuses keeps nothing."""
        self._tops, usable = [], []
        for hierarchy in self._hierarchies():
            top = hierarchy.parent / self._folder
            try:
                top.mkdir(exist_ok=True)
                if hierarchy.keeper is Keeper.CGROUP_V2:
                    for limit in hierarchy.limits:
                        enable(top, CONTROLLERS[limit])
            except OSError as error:
                logger.info(
                    "No control groups here",
                    extra={"action": "no_control_groups", "path": str(top), "error": str(error)},
                )
                continue
            self._tops.append(top)
            usable.append(hierarchy)
        self._known = usable

    def _group(self, hierarchy: Hierarchy, folder: str, keeps: frozenset[Limit]) -> Group:
        path = hierarchy.parent / self._folder / folder
        path.mkdir()
        if hierarchy.keeper is Keeper.CGROUP_V2:
            return GroupV2(path, keeps)
        return GroupV1(path, keeps)


def groups_of(owner_label: str) -> list[Path]:
    """Return the groups that an agent-runner has, those inside others first. Called by ``runner gc``."""
    tops = folders_named(_folder_of(owner_label))
    return [path for top in tops for path in (*_below(top), top)]


def _folder_of(owner_label: str) -> str:
    return PREFIX + _SAFE.sub("_", owner_label)


def _below(top: Path) -> list[Path]:
    try:
        return sorted(path for path in top.iterdir() if path.is_dir())
    except OSError:
        return []


def _try_remove(path: Path) -> None:
    try:
        remove_group(path)
    except OSError as error:
        logger.warning(
            "A control group could not be removed",
            extra={"action": "control_group_kept", "path": str(path), "error": str(error)},
        )
