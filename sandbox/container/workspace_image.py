"""The image from which workspaces and caches are made: four empty folders, no program.

An engine fills a new volume with what the image of its first container has at that place, owners and modes included. So a
folder that the job's user may write costs nothing per job; unpacking it would start a process of the engine each time.
"""

from __future__ import annotations

import tarfile

from sandbox.container.engine import Engine
from sandbox.container.failure import Operation
from sandbox.container.images import inspect
from sandbox.container.pack import END
from sandbox.env import JOB_UID
from sandbox.errors import ImageMissingError

REPOSITORY = "runner-workspace"
TAG = "2"
"""Changes with the content below."""
_FOLDERS = (
    # Nobody but root can move ci away: that is what the sticky bit says.
    ("job", 0, 0o1777),
    ("job/src", JOB_UID, 0o755),
    ("job/ci", 0, 0o755),
    ("cache", JOB_UID, 0o755),
)


async def workspace_image(engine: Engine) -> str:
    """Return the id of the image, made if it is not there. Called once per connection."""
    name = f"{REPOSITORY}:{TAG}"
    try:
        return (await inspect(engine, name)).id
    except ImageMissingError:
        await engine.call(
            Operation.CREATE,
            "POST",
            "/images/create",
            # Podman overlooks a tag of its own.
            params={"fromSrc": "-", "repo": name},
            content=workspace_archive(),
            headers={"Content-Type": "application/x-tar"},
            subject=name,
        )
    return (await inspect(engine, name)).id


def workspace_archive(top: str = "") -> bytes:
    """Return the empty folders, with their owners and modes; only what is at or below ``top``, as it is seen from there."""
    pieces = []
    for name, owner, mode in _FOLDERS:
        if top and name.partition("/")[0] != top:
            continue
        entry = tarfile.TarInfo(name.removeprefix(top).lstrip("/") or ".")
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        entry.uid = entry.gid = owner
        pieces.append(entry.tobuf(tarfile.USTAR_FORMAT))
    # Nothing behind the end: Podman fails now and then if it is given more than its unpacking process takes.
    return b"".join((*pieces, END))
