"""Which parts of the host a command may read, and the copy of /etc that bubblewrap shows.

A bind mount costs about 0.1 ms for every command, so the wanted files of /etc are copied once
into one folder, in memory where that can be, that is mounted as a whole. What changes on a running host (the resolver's
configuration, certificates) is copied again when a sandbox is created.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sandbox.env import JOB_UID, JOB_USER
from sandbox.filesystem.memory_folder import MEMORY, open_memory_folder

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC_ENTRIES = (
    "alternatives", "bash.bashrc", "ca-certificates", "ca-certificates.conf", "debian_version",
    "fonts", "gai.conf", "gitconfig", "group", "host.conf", "hosts", "inputrc", "java-11-openjdk",
    "java-17-openjdk", "java-21-openjdk", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "mime.types", "networks", "nsswitch.conf", "os-release", "passwd", "perl", "pki", "profile",
    "protocols", "python3", "resolv.conf", "rpc", "services", "ssl", "terminfo", "timezone",
)  # fmt: skip
"""What programs need of /etc. None of it is secret on a sane host; what only root may read is skipped."""
_SYNTHETIC = {
    "passwd": (
        "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        f"{JOB_USER}:x:{JOB_UID}:{JOB_UID}:job:/home/job:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "group": f"root:x:0:\n{JOB_USER}:x:{JOB_UID}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost job\n::1 localhost ip6-localhost ip6-loopback\n",
    "hostname": "job\n",
}
_FIRST_ENTRIES = ("ld.so.cache", "ld.so.conf", "nsswitch.conf")
_PUBLIC_FILE = 0o644
_PUBLIC_FOLDER = 0o755


class EtcCopy:
    """The folder that is /etc inside bubblewrap. One per provider; never writable from inside."""

    def __init__(
        self, fallback: Path, source: Path = Path("/etc"), *, memory: Path = MEMORY
    ) -> None:
        """Remember where; nothing is made before ``begin``.

        Args:
            fallback: The folder, where there is no file system in memory.
            source: What is copied.
            memory: The file system in memory.
        """
        self.path = fallback
        """Known after ``begin``."""
        self._fallback = fallback
        self._source = source
        self._memory = memory
        self._folder: Path | None = None
        self._seen: dict[str, tuple[int, int]] = {}

    def begin(self) -> None:
        """Make the folder with what a first command needs. Called once before ``refresh``, and again after ``remove``."""
        if self._folder is None:
            self._folder = open_memory_folder(self._memory)
            self.path = self._fallback if self._folder is None else self._folder / "etc"
        self.path.mkdir(mode=_PUBLIC_FOLDER, parents=True, exist_ok=True)
        self.path.chmod(_PUBLIC_FOLDER)
        self.path.parent.chmod(_PUBLIC_FOLDER)
        for name, text in _SYNTHETIC.items():
            self._write(name, text.encode())
        for name in _FIRST_ENTRIES:
            self._refresh_entry(name)

    def refresh(self) -> None:
        """Copy what is new since the last call: all at first, then one stat per entry."""
        for name in ETC_ENTRIES:
            if name not in _SYNTHETIC:
                self._refresh_entry(name)

    def remove(self) -> None:
        """Give the memory back. No sandbox may use it any more; the fallback is removed with the folder that it is in."""
        self._seen.clear()
        if self._folder is not None:
            import shutil  # noqa: PLC0415 - with four ways to compress, which an agent-runner that rests does without

            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _refresh_entry(self, name: str) -> None:
        source = self._source / name
        try:
            found = source.stat()
        except OSError:
            return
        mark = (found.st_mtime_ns, found.st_ino)
        if self._seen.get(name) == mark:
            return
        self._seen[name] = mark
        if stat.S_ISDIR(found.st_mode):
            _copy_folder(str(source), str(self.path / name))
        elif _is_public(found) and stat.S_ISREG(found.st_mode):
            self._write(name, source.read_bytes())

    def _write(self, name: str, content: bytes) -> None:
        """Replace a file in one step: running sandboxes see the old one or the new one."""
        temporary = self.path / f".{name}.new"
        temporary.write_bytes(content)
        temporary.chmod(_PUBLIC_FILE)
        temporary.replace(self.path / name)


def _is_public(found: os.stat_result) -> bool:
    return bool(found.st_mode & stat.S_IROTH)


def _copy_folder(source: str, target: str) -> None:
    """Copy what everybody may read; links stay links, because /usr is the same inside.

    Hundreds of links are on the path of the first start, so this is plain os calls.
    """
    try:
        os.mkdir(target, _PUBLIC_FOLDER)  # noqa: PTH102
        os.chmod(target, _PUBLIC_FOLDER)  # noqa: PTH101
    except FileExistsError:
        pass
    try:
        entries = list(os.scandir(source))
    except OSError:
        return
    for entry in entries:
        copy = f"{target}/{entry.name}"
        if entry.is_symlink():
            _copy_link(entry.path, copy)
        elif not _is_public(entry.stat(follow_symlinks=False)):
            continue
        elif entry.is_dir(follow_symlinks=False):
            _copy_folder(entry.path, copy)
        elif entry.is_file(follow_symlinks=False):
            made = Path(copy)
            made.write_bytes(Path(entry.path).read_bytes())
            made.chmod(_PUBLIC_FILE)


def _copy_link(source: str, copy: str) -> None:
    destination = os.readlink(source)  # noqa: PTH115
    try:
        os.symlink(destination, copy)  # noqa: PTH211
    except FileExistsError:
        os.unlink(copy)  # noqa: PTH108
        os.symlink(destination, copy)  # noqa: PTH211
