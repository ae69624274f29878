"""What killed agent-runners and installations have left on this host, and whose it is. Knows no command line.

Nothing counts as left behind that could be in use: an installation runs while its state directory is locked, an
agent-runner while its claim on its workspaces is, a ``run-local`` while the process lives that its folder names.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from agent_runner.workspace_claim import Claim, read_claim
from daemon.local.lock import is_locked
from daemon.paths import ROOT_WORKSPACES, StateDir
from sandbox import procfs
from sandbox.bounds.control_groups import groups_of
from sandbox.env import OWNER_MARKER, SANDBOX_MARKER
from sandbox.live_processes import boot_s

RUN_LOCAL = "run-local-"
SPOOL_SUFFIX = ".spool"
ENDS_SUFFIX = ".ends"
"""Of the file with the ends of attempts that printed nothing."""
OUTPUTS_SUFFIX = ".outputs"
"""Of the folder beside a spool that holds what the attempt left."""
RUNTIME_REST_S = 600.0
"""A runtime folder of an unknown installation must be unchanged for so long: one that just starts has no socket yet."""
TEMPORARY = Path("/tmp")  # noqa: S108 - where daemon.paths puts what has no better place
SOCKETS = frozenset({"server.sock", "daemon.sock"})
_ATTEMPT = re.compile(r"([0-9a-z]{8,64})-([0-9]{1,6})")
_AGENT_RUNNER = re.compile(r"agent-runner(|-[0-9]+)")
_SPOOL = re.compile(r"spool(|-[0-9]+)")
_INSTALLATION = re.compile(r"[0-9a-f]{12}")


class Measure(NamedTuple):
    """How much, and since when."""

    size_bytes: int
    """On the disk."""
    mtime_s: float
    """When it was last changed, or a process started, in seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """One thing that is left."""

    kind: str
    """``process``, ``workspace``, ``folder`` (of workspaces), ``spool``, ``runtime``, ``control group``, ``container``, ``volume``, or the ``cache`` of a project."""
    path: str
    """Of a process its number."""
    state_dir: str | None = None
    """The installation that it belonged to, where that is known."""
    guard: str | None = None
    """The state directory that must stay locked while it is removed, so that nobody starts to use it."""
    owner: str = ""
    """Of a process: the mark of its agent-runner."""
    sandbox: str = ""
    """Of a process: the mark of its sandbox, which no later attempt has; its number where it has none."""
    job_id: str | None = None
    attempt: int | None = None
    measure: Measure
    keep: str = ""
    """Why it is not to be removed; empty if it is nobody's."""
    undelivered: bool = False
    """It is kept because it holds what was not delivered yet."""


def find_leftovers(state: StateDir, env: Mapping[str, str], now_s: float) -> Iterator[Leftover]:
    """Yield what is left of one state directory and, as far as it can be found, of others of this user.

    Processes come first, then workspaces, each before the folder that it is in. Called by ``runner gc``.

    Args:
        state: The installation that is looked at wholly.
        env: The caller's environment, which may say where others have their sockets.
        now_s: The wall-clock time.
    """
    running = is_locked(state)
    spools = (
        [] if running else [path for path in _entries(state.root) if _SPOOL.fullmatch(path.name)]
    )
    # Each agent-runner has a spool, and marks its processes with the number of that. To each mark, its guard.
    own = str(state.root)
    dead: dict[str, str | None] = {
        state.id + path.name.removeprefix("spool"): own for path in spools
    }
    found: list[Leftover] = []
    for parent in _workspace_parents(state):
        known = state if parent == state.workspaces else None
        for folder in _entries(parent):
            found += _of_start(folder, known, dead, running=running and known is not None)
    yield from _processes(dead)
    yield from found
    for folder in spools:
        yield from _spooled(folder, state)
    yield from _runtimes(state, env, now_s, running=running)
    yield from _groups(dead)


def _groups(dead: dict[str, str | None]) -> Iterator[Leftover]:
    """Yield the control groups of dead agent-runners, which hold no memory but their own."""
    for label, guard in dead.items():
        for path in groups_of(label):
            yield Leftover(
                kind="control group",
                path=str(path),
                state_dir=guard,
                guard=guard,
                measure=Measure(0, _measured(path).mtime_s),
            )


def _workspace_parents(state: StateDir) -> list[Path]:
    parents = {state.workspaces}
    if os.geteuid() == 0:
        parents |= {
            path for path in _entries(ROOT_WORKSPACES) if _INSTALLATION.fullmatch(path.name)
        }
    return sorted(parents)


def _of_start(
    folder: Path, state: StateDir | None, dead: dict[str, str | None], *, running: bool
) -> list[Leftover]:
    """Return what one start of an agent-runner or run-local has left; nothing if it may live."""
    claim = read_claim(folder)
    state_dir = state.root if state else claim.state_dir if claim else None
    label = None if state_dir is None else str(state_dir)
    # Who runs something here and now takes no lock, and uses no folder of another.
    guard = None if folder.name.startswith(RUN_LOCAL) else label
    installation = folder.parent.name if state is None else state.id
    keep = _foreign(folder)
    if folder.name.startswith(RUN_LOCAL):
        if run_local_lives(folder.name):
            return []
        dead[f"{installation}-{folder.name}"] = guard
    elif not _AGENT_RUNNER.fullmatch(folder.name):
        keep = keep or "no agent-runner has made it"
    elif (claim is not None and claim.held) or _is_running(state, claim):
        return []
    elif running:
        if state is None or _has_agent_runner(state, folder.name):
            return []
        keep = keep or "its installation runs: the next start removes it"
    elif label is None:
        keep = keep or "nothing tells which installation it belongs to"
    else:
        dead[installation + folder.name.removeprefix("agent-runner")] = guard
    rest = _measured(folder)
    whole = Leftover(
        kind="folder", path=str(folder), state_dir=label, guard=guard, keep=keep, measure=rest
    )
    found = _workspaces(whole)
    size_bytes = rest.size_bytes - sum(one.measure.size_bytes for one in found)
    return [*found, replace(whole, measure=Measure(size_bytes, rest.mtime_s))]


def _workspaces(folder: Leftover) -> list[Leftover]:
    """Return the workspaces in the folder of one start."""
    return [
        replace(
            folder,
            kind="workspace",
            path=str(path),
            job_id=attempt[1],
            attempt=int(attempt[2]),
            measure=_measured(path),
        )
        for path in _entries(Path(folder.path))
        if (attempt := _ATTEMPT.fullmatch(path.name))
    ]


def _has_agent_runner(state: StateDir, name: str) -> bool:
    """Tell whether a running installation runs this agent-runner: it has made its spool, and taken over all others."""
    return (state.root / name.replace("agent-runner", "spool", 1)).is_dir()


def _is_running(state: StateDir | None, claim: Claim | None) -> bool:
    """Tell whether the installation runs that a claim names, although this agent-runner of it is dead."""
    if state is not None or claim is None:
        return False
    return is_locked(StateDir(claim.state_dir, claim.state_dir))


def run_local_lives(name: str) -> bool:
    """Tell whether the process lives that has made a folder: its pid and start time are in the name."""
    pid, _, ticks = name.removeprefix(RUN_LOCAL).partition("-")
    if not pid.isdecimal() or not ticks.isdecimal():
        return True  # not a name of ours, so nothing of ours to remove
    found = procfs.read_stat(int(pid))
    return found is not None and found.start_ticks == int(ticks)


def attempt_of(sandbox: str) -> tuple[str | None, int | None]:
    """Return the job and the number of the attempt whose sandbox has a name."""
    match = _ATTEMPT.fullmatch(sandbox)
    return (match[1], int(match[2])) if match else (None, None)


def _processes(dead: Mapping[str, str | None]) -> Iterator[Leftover]:
    """Yield the processes that carry the mark of a dead agent-runner."""
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    for found in procfs.snapshot().values():
        owner = procfs.environ_value(found.pid, OWNER_MARKER)
        if not found.alive or owner is None or owner not in dead or found.pid == os.getpid():
            continue
        sandbox = procfs.environ_value(found.pid, SANDBOX_MARKER) or ""
        job_id, attempt = attempt_of(sandbox)
        yield Leftover(
            kind="process",
            path=str(found.pid),
            owner=owner,
            sandbox=sandbox or str(found.pid),
            guard=dead[owner],
            job_id=job_id,
            attempt=attempt,
            measure=Measure(0, boot_s() + found.start_ticks / ticks_per_s),
        )


def _spooled(folder: Path, state: StateDir) -> Iterator[Leftover]:
    for path in _entries(folder):
        attempt = _ATTEMPT.match(path.name)
        if (path.suffix == SPOOL_SUFFIX and attempt) or path.suffix == ENDS_SUFFIX:
            yield Leftover(
                kind="spool",
                path=str(path),
                state_dir=str(state.root),
                guard=str(state.root),
                job_id=attempt[1] if attempt else None,
                attempt=int(attempt[2]) if attempt else None,
                keep=_foreign(path) or "a log and result not delivered yet: the next start does it",
                undelivered=True,
                measure=_measured(path),
            )


def _runtimes(
    state: StateDir, env: Mapping[str, str], now_s: float, *, running: bool
) -> Iterator[Leftover]:
    """Yield folders of sockets that nobody listens on."""
    if not running and _entries(state.runtime):
        yield _runtime(state.runtime, str(state.root), rested=True)
    of_user = re.compile(rf"runner-{os.geteuid()}-[0-9a-f]{{12}}")
    folders = [path for path in _entries(TEMPORARY) if of_user.fullmatch(path.name)]
    if env.get("XDG_RUNTIME_DIR", "").startswith("/"):
        shared = _entries(Path(env["XDG_RUNTIME_DIR"]) / "runner")
        folders += [path for path in shared if _INSTALLATION.fullmatch(path.name)]
    for folder in folders:
        if folder != state.runtime and not _is_listening(folder):
            with contextlib.suppress(OSError):
                rested = now_s - folder.lstat().st_mtime >= RUNTIME_REST_S
                yield _runtime(folder, None, rested=rested)


def _runtime(folder: Path, state_dir: str | None, *, rested: bool) -> Leftover:
    keep = _foreign(folder)
    if not keep and any(path.name not in SOCKETS for path in _entries(folder)):
        keep = "it holds something that is no socket of a runner"
    if not keep and not rested:
        keep = "it changed within the last ten minutes"
    return Leftover(
        kind="runtime",
        path=str(folder),
        state_dir=state_dir,
        guard=state_dir,
        keep=keep,
        measure=_measured(folder),
    )


def _is_listening(folder: Path) -> bool:
    for path in _entries(folder):
        if path.name in SOCKETS:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
                probe.setblocking(False)
                try:
                    probe.connect(str(path))
                except (ConnectionRefusedError, FileNotFoundError):
                    continue
                except OSError:
                    return True  # a full backlog is somebody's, too
                return True
    return False


def _foreign(path: Path) -> str:
    try:
        status = path.lstat()
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    return "" if status.st_uid == os.geteuid() else f"it belongs to user {status.st_uid}"


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder that is no link; nothing if it cannot be read."""
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return []
        return sorted(folder.iterdir())
    except OSError:
        return []


def _measured(path: Path) -> Measure:
    """Return the size on disk of a tree, and the last change of its top. Follows no link and stays below."""
    total, top_s = 0, 0.0
    with contextlib.suppress(OSError):
        status = path.lstat()
        total, top_s = status.st_blocks * 512, status.st_mtime
    pending = [str(path)] if path.is_dir() and not path.is_symlink() else []
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
    return Measure(total, top_s)
