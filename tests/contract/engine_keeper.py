"""Runs a container engine of its own for the tests, and leaves nothing of it behind, however the tests end.

``python -m tests.contract.engine_keeper ROOT KIND`` as root: starts an engine below ROOT, puts two images into it, says
``ready`` on stdout, and waits for the end of its stdin, which also comes when the tests are killed. Until then it obeys the
lines ``kill`` and ``start``, and says ``done`` after each.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from urllib.parse import quote

from tests.contract import engine_kinds
from tests.contract.engine_kinds import BUSYBOX, DOCKER

READY_S = 120.0
STOP_S = 20.0
FOLDERS = ("bin", "dev", "etc", "proc", "sbin", "sys", "tmp", "usr", "usr/bin", "usr/lib", "var")


class EngineConnection(http.client.HTTPConnection):
    """HTTP over the unix socket of an engine."""

    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=READY_S)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Return status and content of one answer."""
    connection = EngineConnection(path)
    with contextlib.closing(connection):
        connection.request(method, url, body)
        answer = connection.getresponse()
        return answer.status, answer.read()


def busybox_root() -> bytes:
    """Return a root file system with busybox and nothing else."""
    names = subprocess.check_output([BUSYBOX, "--list"], text=True).split()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for folder in FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        binary = BUSYBOX.read_bytes()
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(binary), 0o755
        tar.addfile(entry, io.BytesIO(binary))
        for name in names:
            for place in ("bin", "usr/bin"):
                if (place, name) == ("bin", "busybox"):
                    continue
                entry = tarfile.TarInfo(f"{place}/{name}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "/bin/busybox"
                tar.addfile(entry)
    return content.getvalue()


def empty_root() -> bytes:
    """Return a root file system without a single program."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        entry = tarfile.TarInfo("etc")
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
    return content.getvalue()


def import_image(path: Path, name: str, root: bytes, *changes: str) -> None:
    """Make an image of a root file system."""
    wanted = "".join(f"&changes={quote(change)}" for change in changes)
    url = f"/images/create?fromSrc=-&repo=runner-test:{name}{wanted}"
    status, said = ask(path, "POST", url, root)
    if status != http.HTTPStatus.OK or b'"error"' in said:
        raise SystemExit(f"no image {name}: {said!r}")


def start(root: Path, kind: str = DOCKER) -> subprocess.Popen[bytes]:
    """Start an engine and wait until it answers."""
    with (root / "engine.log").open("ab") as log:
        engine = subprocess.Popen(
            engine_kinds.command(kind, root),
            cwd=root,  # conmon leaves a file in it
            env=engine_kinds.environment(kind, root),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and engine.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ask(root / "sock", "GET", "/_ping")[1] == b"OK":
                (root / "sock").chmod(0o660)  # as those who install an engine have it
                return engine
        time.sleep(0.05)
    stop(engine)
    raise SystemExit((root / "engine.log").read_text()[-2000:])


def stop(engine: subprocess.Popen[bytes]) -> None:
    """End an engine: TERM, and KILL after a while."""
    engine.send_signal(signal.SIGTERM)
    try:
        engine.wait(STOP_S)
    except subprocess.TimeoutExpired:
        engine.kill()
        engine.wait()


def kill_what_runs_below(root: Path) -> None:
    """Kill what an engine that was killed leaves: its containerd, shims, and through them the containers."""
    mark = f"{root}/exec".encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if mark in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                os.kill(int(entry.name), signal.SIGKILL)


def remove(root: Path) -> None:
    """Remove every trace: mounts, control groups, files."""
    kill_what_runs_below(root)
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{root}/")), reverse=True):
        subprocess.call(["umount", "--lazy", mount], stderr=subprocess.DEVNULL)
    for group in Path("/sys/fs/cgroup").glob(f"**/{root.name}"):
        # Those of containers whose engine was killed are below it.
        for folder in sorted(group.glob("**/"), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()
    shutil.rmtree(root, ignore_errors=True)


def keep(root: Path, kind: str) -> None:
    """Start an engine, put the images into it, and obey until the end of our input."""
    engine = start(root, kind)
    try:
        # A user, an entry point and a volume that must all mean nothing to a job.
        changes = ("ENV FROM_IMAGE=yes", "USER 0", 'ENTRYPOINT ["/bin/false"]', "VOLUME /data")
        import_image(root / "sock", "busybox", busybox_root(), *changes)
        import_image(root / "sock", "empty", empty_root())
        print("ready", flush=True)
        for order in sys.stdin.buffer:
            if order == b"kill\n":
                engine.kill()
                engine.wait()
                # Its containerd dies with it, and where nobody collects the dead is taken for alive.
                (root / "exec/containerd/containerd.pid").unlink(missing_ok=True)
            else:
                engine = start(root, kind)
            print("done", flush=True)
    finally:
        stop(engine)


def main(root: Path, kind: str) -> None:
    """Keep an engine for as long as somebody holds our input."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the tests is the end of our input
    with engine_kinds.control_groups(kind):
        try:
            keep(root, kind)
        finally:
            engine_kinds.remove_containers(kind, root)
            remove(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
