"""The kinds of container engines that the tests start, each with all that it has below one folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

DOCKER, PODMAN = "docker", "podman"
ENGINES = (DOCKER, PODMAN)
BUSYBOX = Path("/usr/bin/busybox")
_GROUPS = Path("/sys/fs/cgroup")

_PROGRAMS = {
    DOCKER: {"dockerd": "docker.io", "runc": "runc"},
    PODMAN: {"podman": "podman", "catatonit": "catatonit", "runc": "runc"},
}
"""What a kind needs, and the package of it."""

_PODMAN_FILES = {
    # Locks in shared memory would be those of every Podman of this host.
    "containers.conf": """[engine]
events_logger = "none"
lock_type = "file"
""",
    "storage.conf": """[storage]
driver = "overlay"
graphroot = "{root}/data"
runroot = "{root}/exec"
""",
    # The registry of the tests speaks no TLS; Docker takes that from loopback, Podman only if it is told.
    "registries.conf": '[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n',
}
_PODMAN_FILE_OF = {
    "CONTAINERS_CONF": "containers.conf",
    "CONTAINERS_STORAGE_CONF": "storage.conf",
    "CONTAINERS_REGISTRIES_CONF": "registries.conf",
}


def missing_part(kind: str = DOCKER) -> str:
    """Return why there can be no engine of a kind here; nothing if there can."""
    if os.geteuid() != 0:
        return "only root can run a container engine"
    for program, package in _PROGRAMS[kind].items():
        if shutil.which(program) is None:
            return f"{package} is not installed"
    return "" if BUSYBOX.exists() else "busybox-static is not installed"


def command(kind: str, root: Path) -> list[str]:
    """Return what starts an engine below a folder."""
    if kind == PODMAN:
        return [*_podman(root), "system", "service", "--time=0", f"unix://{root}/sock"]
    return [
        "dockerd",
        f"--data-root={root}/data",
        f"--exec-root={root}/exec",
        f"--pidfile={root}/pid",
        f"--host=unix://{root}/sock",
        f"--cgroup-parent=/{root.name}",
        "--bridge=none",
        "--iptables=false",
        "--ip-forward=false",
        "--ip-masq=false",
        "--userland-proxy=false",
    ]


def environment(kind: str, root: Path) -> Mapping[str, str]:
    """Return the environment of an engine, and make the folders and files that it names."""
    if kind != PODMAN:
        return os.environ
    for name, text in _PODMAN_FILES.items():
        (root / name).write_text(text.format(root=root))
    (root / "tmp").mkdir(exist_ok=True)
    files = {variable: str(root / name) for variable, name in _PODMAN_FILE_OF.items()}
    places = {"HOME": str(root), "XDG_RUNTIME_DIR": str(root), "TMPDIR": str(root / "tmp")}
    # Asked for its version or facts it has dpkg look for the package of each of its programs, half a second in all.
    places["DPKG_ADMINDIR"] = str(root / "tmp")
    return {**os.environ, **places, **files}


def remove_containers(kind: str, root: Path) -> None:
    """Remove the containers of an engine that has ended: those of Podman live on, each with a process of its own beside it."""
    if kind == PODMAN:
        argv = [*_podman(root), "rm", "--all", "--force", "--time=0"]
        quiet = subprocess.DEVNULL
        env = environment(kind, root)
        subprocess.call(argv, cwd=root, env=env, stdout=quiet, stderr=quiet)


@contextmanager
def control_groups(kind: str) -> Iterator[None]:
    """Remove the empty control groups that an engine leaves, which all Podmans of a host share, after the last one of the tests."""
    if kind != PODMAN:
        yield
        return
    with contextlib.ExitStack() as stack:
        lock = os.open(_GROUPS, os.O_RDONLY)
        stack.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for folder in [
                *_GROUPS.glob("**/libpod_parent/conmon"),
                *_GROUPS.glob("**/libpod_parent"),
            ]:
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _podman(root: Path) -> list[str]:
    return ["podman", f"--tmpdir={root}/exec/libpod", "--cgroup-manager=cgroupfs", "--runtime=runc"]
