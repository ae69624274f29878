"""Where this process may make control groups, and for what: pure parsers, and a look at the host.

Version 2 is one tree for all controllers, version 1 one tree for each; a hybrid host has some of both. Groups are made below
the one that this process is in, so that its own bounds go on to hold, or below the nearest one above it that
works: without root's rights a group of version 2 that has processes cannot hand its controllers on.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from sandbox.limits import Keeper, Limit

CONTROLLERS = {Limit.MEMORY: "memory", Limit.PIDS: "pids", Limit.CPUS: "cpu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A tree of control groups, as this process sees it."""

    keeper: Keeper
    controllers: frozenset[str]
    """Of version 1; those of version 2 are read from its files."""
    point: Path
    own: Path
    """The group of this process, at or below ``point``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """A tree in which groups can be made that keep some bounds."""

    keeper: Keeper
    parent: Path
    """The group below which the runner makes its own."""
    limits: frozenset[Limit]


def parse_mounts(mountinfo: str, own_groups: str) -> list[Mount]:
    """Return the trees that are mounted here.

    Args:
        mountinfo: proc_pid_mountinfo(5).
        own_groups: ``/proc/self/cgroup`` (cgroups(7)).
    """
    own: dict[frozenset[str], str] = {}
    for line in own_groups.splitlines():
        _, names, path = line.split(":", 2)
        own[frozenset(filter(None, names.split(",")))] = path
    found = (_mount_of(line, own) for line in mountinfo.splitlines())
    return [mount for mount in found if mount is not None]


def _mount_of(line: str, own: dict[frozenset[str], str]) -> Mount | None:
    fields, _, tail = line.partition(" - ")
    kind, _, options = tail.split(" ", 2)
    root, point = (_unescaped(field) for field in fields.split()[3:5])
    if kind == "cgroup2":
        keeper, controllers = Keeper.CGROUP_V2, frozenset[str]()
    elif kind == "cgroup":
        words = frozenset(options.split(","))
        keeper = Keeper.CGROUP_V1
        controllers = next((names for names in own if names and names <= words), frozenset())
    else:
        return None
    if controllers not in own or (kind == "cgroup" and not controllers):
        return None
    # A container sees its group at the mount point, below which the rest of the path is.
    below = os.path.relpath(own[controllers], root)
    if below.startswith(".."):
        below = "."
    return Mount(
        keeper=keeper,
        controllers=controllers,
        point=Path(point),
        own=Path(os.path.normpath(f"{point}/{below}")),
    )


def find_hierarchies(mounts: list[Mount]) -> list[Hierarchy]:
    """Return where bounds can be kept, each at most once; tried on the host, as far as it changes nothing for others."""
    found = []
    missing = set(CONTROLLERS)
    for mount in mounts:
        hierarchy = _first_v2(mount) if mount.keeper is Keeper.CGROUP_V2 else _v1(mount)
        if hierarchy is not None and (new := hierarchy.limits & missing):
            missing -= new
            found.append(
                Hierarchy(keeper=mount.keeper, parent=hierarchy.parent, limits=frozenset(new))
            )
    return found


def host_hierarchies() -> list[Hierarchy]:
    """Return where bounds can be kept on this host. Controllers of version 2 are handed on where that is allowed."""
    return find_hierarchies(_host_mounts())


def folders_named(name: str) -> list[Path]:
    """Return the groups of this name in the group of this process and those above it; changes nothing."""
    return [
        group / name
        for mount in _host_mounts()
        for group in (mount.own, *mount.own.parents)
        if group.is_relative_to(mount.point) and (group / name).is_dir()
    ]


def _host_mounts() -> list[Mount]:
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text()
        own_groups = Path("/proc/self/cgroup").read_text()
    except OSError:
        return []
    return parse_mounts(mountinfo, own_groups)


def _v1(mount: Mount) -> Hierarchy | None:
    limits = frozenset(limit for limit, name in CONTROLLERS.items() if name in mount.controllers)
    if not limits or not _writable(mount.own):
        return None
    return Hierarchy(keeper=mount.keeper, parent=mount.own, limits=limits)


def _first_v2(mount: Mount) -> Hierarchy | None:
    """Return the nearest group that can hand controllers on; a process is moved only within what its user may write."""
    group = mount.own
    while group.is_relative_to(mount.point):
        if _writable(group) and os.access(group / "cgroup.procs", os.W_OK):
            handed_on = _handed_on(group)
            limits = frozenset(limit for limit, name in CONTROLLERS.items() if name in handed_on)
            if limits:
                return Hierarchy(keeper=mount.keeper, parent=group, limits=limits)
        group = group.parent
    return None


def _handed_on(group: Path) -> set[str]:
    """Return the controllers that groups below have, after asking for those that we use."""
    with contextlib.suppress(OSError):
        for name in set((group / "cgroup.controllers").read_text().split()) & {
            *CONTROLLERS.values()
        }:
            enable(group, name)
        return set((group / "cgroup.subtree_control").read_text().split())
    return set()


def enable(group: Path, controller: str) -> None:
    """Hand a controller of version 2 on to the groups below, where that is allowed."""
    try:
        (group / "cgroup.subtree_control").write_text(f"+{controller}")
    except OSError as error:
        # Processes in the group, somebody else's group, or a controller that is not here.
        if error.errno not in {
            errno.EBUSY,
            errno.EACCES,
            errno.EPERM,
            errno.ENOENT,
            errno.EOPNOTSUPP,
        }:
            raise


def _writable(group: Path) -> bool:
    return os.access(group, os.W_OK | os.X_OK)


def _unescaped(text: str) -> str:
    """Return a path of mountinfo, in which blanks and the like are octal."""
    return text.encode().decode("unicode_escape") if "\\" in text else text
