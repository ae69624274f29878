"""What a container is made of: pure, so that every wall can be read here and tested without an engine."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.base import Network, SandboxRequest
from sandbox.container.settings import ContainerSettings
from sandbox.env import JOB_ROOT, JOB_UID
from sandbox.limits import Limits

HOME = "/home/job"
CACHE = "/cache"
TMP = "/tmp"  # noqa: S108  # inside a container
OWNER_LABEL = "runner.owner"
SANDBOX_LABEL = "runner.sandbox"
STATE_LABEL = "runner.state_directory"
CACHE_LABEL = "runner.cache"
_SHM_BYTES = 64 << 20
_PROCESSES = 32 << 10
_GENTLE = 500
"""Of the out-of-memory score: jobs go before the engine and before us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuses:
    """The bounds of a container, each with a value."""

    memory_bytes: int
    cpus: float
    pids: int
    open_files: int
    file_bytes: int

    @classmethod
    def of(cls, limits: Limits, *, memory_bytes: int, cpus: float, pids: int) -> Fuses:
        """Return what a job asked for, and the given values where it did not ask."""
        return cls(
            memory_bytes=limits.memory_bytes or memory_bytes,
            cpus=min(limits.cpus or cpus, cpus),
            pids=limits.pids or pids,
            open_files=limits.open_files,
            file_bytes=limits.file_bytes,
        )


def labels(owner: str, state_folder: str, request: SandboxRequest) -> dict[str, str]:
    """Return what marks everything of one sandbox in the engine."""
    job, _, attempt = request.name.rpartition("-")
    return {
        OWNER_LABEL: owner,
        STATE_LABEL: state_folder,
        SANDBOX_LABEL: request.name,
        "runner.job": job,
        "runner.attempt": attempt,
    }


def workspace_mount(volume: str, marks: Mapping[str, str]) -> dict[str, Any]:
    """Return the mount of the volume that holds ``/job``; the engine makes it, with the content of a first image's ``/job``."""
    options = {"Labels": {**marks}}
    return {"Type": "volume", "Source": volume, "Target": JOB_ROOT, "VolumeOptions": options}


def image_volumes(
    paths: Iterable[str], taken: Iterable[str], marks: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the mounts of the volumes that an image asks for, with labels, so that what an engine leaves that is killed is found.

    Args:
        paths: As the image writes them.
        taken: Where something else is mounted.
        marks: The labels.
    """
    targets = {posixpath.normpath(path) for path in paths} - {*taken, TMP, "/run", HOME}
    options = {"Labels": {**marks}}
    return [
        {"Type": "volume", "Target": target, "VolumeOptions": options}
        for target in sorted(targets)
        if target.startswith("/")
    ]


def cache_mount(volume: str) -> dict[str, Any]:
    """Return the mount of a project's cache, which outlives every job and so carries no label of one."""
    options = {"Labels": {CACHE_LABEL: volume}}
    return {"Type": "volume", "Source": volume, "Target": CACHE, "VolumeOptions": options}


def without_copy(mount: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mount that takes nothing of the image of a job, whichever of its containers the engine makes first."""
    return {**mount, "VolumeOptions": {**mount["VolumeOptions"], "NoCopy": True}}


def holder(
    image: str, mounts: Sequence[Mapping[str, Any]], marks: Mapping[str, str]
) -> dict[str, Any]:
    """Return a container that never runs: files go in and out of the volume by it."""
    return {
        "Image": image,
        "Cmd": ["-"],
        "Labels": {**marks},
        "HostConfig": {"Mounts": [*mounts], "NetworkMode": "none", "LogConfig": {"Type": "none"}},
    }


def job(  # noqa: PLR0913  # the parts of one container, by name
    image: str,
    words: Sequence[str],
    *,
    settings: ContainerSettings,
    network: Network,
    fuses: Fuses,
    mounts: Sequence[Mapping[str, Any]],
    marks: Mapping[str, str],
    extra_hosts: Sequence[str] = (),
    podman: bool = False,
) -> dict[str, Any]:
    """Return a container that runs one command behind all walls that an engine has.

    Not root, no capability, no way to get one, the engine's own system call filter, nothing writable but the workspace
    and folders in memory, nobody's network, processes or memory but its own; no socket, no device, no log of the engine.
    """
    return {
        "Image": image,
        # Podman takes the image's where there is none.
        "Entrypoint": [*words[:1]],
        "Cmd": [*words[1:]],
        "User": f"{JOB_UID}:{JOB_UID}",
        "WorkingDir": "/",
        "Hostname": "job",
        "Env": [],
        "Labels": {**marks},
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_walls(),
            **_bounds(fuses, podman=podman),
            "NetworkMode": "none" if network is Network.OFF else settings.network,
            "Tmpfs": _scratch(settings.scratch_bytes, owned=not podman),
            "Mounts": [*mounts],
            "ExtraHosts": [*extra_hosts],
        },
    }


def _walls() -> dict[str, Any]:
    return {
        "Init": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "Privileged": False,
        "ReadonlyRootfs": True,
        "IpcMode": "private",
        "PidMode": "",
        "LogConfig": {"Type": "none"},
        "RestartPolicy": {"Name": "no"},
    }


def _bounds(fuses: Fuses, *, podman: bool) -> dict[str, Any]:
    # Podman's own default may be more than it may give; the group of the container is what bounds.
    processes = [{"Name": "nproc", "Soft": _PROCESSES, "Hard": _PROCESSES}] if podman else []
    return {
        "Memory": fuses.memory_bytes,
        "MemorySwap": fuses.memory_bytes,
        "NanoCpus": int(fuses.cpus * 1e9),
        "PidsLimit": fuses.pids,
        "OomScoreAdj": _GENTLE,
        "ShmSize": _SHM_BYTES,
        "Ulimits": [
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "nofile", "Soft": fuses.open_files, "Hard": fuses.open_files},
            {"Name": "fsize", "Soft": fuses.file_bytes, "Hard": fuses.file_bytes},
            *processes,
        ],
    }


def _scratch(size: int, *, owned: bool) -> dict[str, str]:
    options = f"rw,nosuid,nodev,exec,size={size}"
    # Podman knows no owner of such a folder; nobody else is in the container.
    own = f"{options},mode=0700,uid={JOB_UID},gid={JOB_UID}" if owned else f"{options},mode=1777"
    return {TMP: f"{options},mode=1777", "/run": f"{options},mode=0755", HOME: own}
