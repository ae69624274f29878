"""``runner gc``: finds what killed agent-runners and installations have left, and removes what is nobody's."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent_runner.workspace_claim import read_claim
from daemon.cli.leftovers import OUTPUTS_SUFFIX, SOCKETS, Leftover, find_leftovers
from daemon.cli.output import note, print_json, print_table, seconds_text, state_of
from daemon.clock import SystemClock
from daemon.config import environ, load
from daemon.paths import StateDir
from sandbox.bounds.control_group import remove_group
from sandbox.env import OWNER_MARKER
from sandbox.filesystem.workspace import Workspace
from sandbox.process_tree import kill_marked

if TYPE_CHECKING:
    from sandbox.container.settings import ContainerSettings

FAILED = "failed: "
DOCKER_SOCKET = Path("/var/run/docker.sock")
"""Where an engine may be that nobody has configured."""


@click.command(epilog="Example: runner gc --dry-run")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option(
    "--force",
    is_flag=True,
    help="Remove logs and results too that were not delivered yet: they are lost then.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def gc(ctx: click.Context, *, dry_run: bool, force: bool, as_json: bool) -> int:
    """Find and remove what killed runs have left: processes, workspaces, sockets, containers.

    What belongs to a running installation, to a living process or to somebody else is never touched.
    """
    now_s = SystemClock().now_us() / 1e6
    settings, in_engine = _in_engine(state_of(ctx))
    found = [*in_engine, *find_leftovers(state_of(ctx), environ(), now_s)]
    if dry_run:
        actions = [_kept(one, force=force) or "would remove" for one in found]
    else:
        actions = remove_leftovers(found, force=force, engine=settings)
    documents = [_document(one, act, now_s) for one, act in zip(found, actions, strict=True)]
    if as_json:
        print_json(documents)
    elif documents:
        print_table(
            ("KIND", "JOB", "ATTEMPT", "SIZE", "AGE", "WHAT", "ACTION"),
            [_row(document) for document in documents],
        )
    else:
        print("nothing is left behind")
    return 1 if any(action.startswith(FAILED) for action in actions) else 0


def _in_engine(state: StateDir) -> tuple[ContainerSettings | None, list[Leftover]]:
    """Return how the container engine is reached, and what is left in it; a person is told why it could not be asked."""
    config = load(environ(), {})
    configured = bool(config["local.container_engine"].value)
    if not configured and not DOCKER_SOCKET.is_socket():
        return None, []
    from daemon.cli.container_settings import container_settings  # noqa: PLC0415 - where there is an engine
    from daemon.cli.engine_leftovers import EngineUnknownError, find_engine_leftovers  # noqa: PLC0415

    settings = container_settings(config)
    try:
        return settings, find_engine_leftovers(state, settings)
    except EngineUnknownError as error:
        if configured:
            note(f"runner: containers were not looked for: {error}")
        return None, []


def _kept(one: Leftover, *, force: bool) -> str:
    """Return why something stays; empty if it is to be removed."""
    if not one.keep or (one.undelivered and force):
        return ""
    return f"keep: {one.keep}"


def remove_leftovers(
    found: Sequence[Leftover], *, force: bool, engine: ContainerSettings | None = None
) -> list[str]:
    """Remove what is nobody's, under the lock of whose it was; return what became of each."""
    actions = []
    with contextlib.ExitStack() as locks:
        held = {
            guard: locks.enter_context(_locked(Path(guard)))
            for guard in {one.guard for one in found if one.guard is not None}
        }
        held_or_free = [one for one in found if one.guard is None or held[one.guard]]
        _kill([one for one in held_or_free if one.kind == "process"])
        for one in found:
            action = _kept(one, force=force)
            if not action and one not in held_or_free:
                action = "keep: its installation has just started"
            actions.append(action or _removed(one, engine))
    return actions


def _kill(processes: Sequence[Leftover]) -> None:
    """Kill the sandboxes that were found, with what they have started since; a name that was not found is somebody's."""
    for owner in {one.owner for one in processes}:
        found = frozenset(one.sandbox for one in processes if one.owner == owner)
        asyncio.run(kill_marked(OWNER_MARKER, owner, partial(_is_other, found)))


def _is_other(found: frozenset[str], sandbox: str) -> bool:
    return sandbox not in found


@contextlib.contextmanager
def _locked(state_dir: Path) -> Iterator[bool]:
    """Keep an installation from starting while its leftovers are removed; False if it runs. Makes no file."""
    try:
        fd = os.open(state_dir / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        yield True  # a state directory that is gone, or where nothing was ever started
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(fd)


def _removed_from_engine(one: Leftover, engine: ContainerSettings) -> str:
    from daemon.cli.engine_leftovers import remove_from_engine  # noqa: PLC0415 - where there is an engine

    reason = remove_from_engine(one, engine)
    return f"{FAILED}{reason}" if reason else "removed"


def _removed(one: Leftover, engine: ContainerSettings | None) -> str:
    if one.kind in ("container", "volume") and engine is not None:
        return _removed_from_engine(one, engine)
    return _removed_here(one)


def _removed_here(one: Leftover) -> str:
    path = Path(one.path)
    try:
        if one.kind in ("workspace", "folder"):
            claim = read_claim(path if one.kind == "folder" else path.parent)
            if claim is not None and claim.held:
                return "keep: its agent-runner has just started"
            Workspace(path, None).remove()
            if one.kind == "folder":
                with contextlib.suppress(OSError):  # others have theirs in it
                    path.parent.rmdir()
        elif one.kind == "control group":
            remove_group(path)
        elif one.kind == "spool":
            path.unlink(missing_ok=True)
            shutil.rmtree(path.with_suffix(OUTPUTS_SUFFIX), ignore_errors=True)
        elif one.kind == "runtime":
            for name in SOCKETS:
                (path / name).unlink(missing_ok=True)
            path.rmdir()
        elif Path(f"/proc/{one.path}").exists():
            return f"{FAILED}it survived KILL"
    except OSError as error:
        return f"{FAILED}{error.strerror or error}"
    return "removed"


def _document(one: Leftover, action: str, now_s: float) -> dict[str, Any]:
    word, _, reason = action.partition(": ")
    return {
        "kind": one.kind,
        "path": None if one.kind == "process" else one.path,
        "pid": int(one.path) if one.kind == "process" else None,
        "state_dir": one.state_dir,
        "job_id": one.job_id,
        "attempt": one.attempt,
        "size_bytes": one.measure.size_bytes,
        "age_seconds": round(max(0.0, now_s - one.measure.mtime_s), 3),
        "action": word,
        "reason": reason or None,
    }


def _row(document: dict[str, Any]) -> tuple[str, ...]:
    reason = f": {document['reason']}" if document["reason"] else ""
    return (
        document["kind"],
        document["job_id"] or "-",
        str(document["attempt"] or "-"),
        f"{document['size_bytes'] >> 10} KiB",
        seconds_text(document["age_seconds"]),
        document["path"] or f"pid {document['pid']}",
        document["action"] + reason,
    )
