"""A root file system with Python and a shell, out of this host's: no registry is reached to have a base image."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from pathlib import Path

from tests.contract.engine_keeper import busybox_root

UNUSED = {
    "site-packages",
    "dist-packages",
    "ensurepip",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
}
UNUSED_PREFIX = "config-"
"""Of the folder with the static library."""


def python_root(objects: Iterable[Path]) -> bytes:
    """Return the root as a tar; it has the libraries that these shared objects want, too."""
    interpreter = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    extensions = [path for path in library.glob("lib-dynload/*.so") if "tkinter" not in path.name]
    content = io.BytesIO(busybox_root())
    with tarfile.open(fileobj=content, mode="a", dereference=True) as tar:
        tar.add(library, str(library).lstrip("/"), filter=_used)
        for path in {interpreter, *_needed([interpreter, *extensions, *objects])}:
            tar.add(path, str(path).lstrip("/"), filter=_plain)
        link = tarfile.TarInfo("usr/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, str(interpreter)
        tar.addfile(link)
    return content.getvalue()


def _used(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = Path(entry.name).name
    return None if name in UNUSED or name.startswith(UNUSED_PREFIX) else _plain(entry)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    return entry


def _needed(objects: list[Path]) -> set[Path]:
    """Return the libraries of some programs and shared objects under the names by which these ask for them."""
    said = subprocess.run(
        ["ldd", *map(str, objects)], capture_output=True, text=True, check=False, timeout=60
    ).stdout
    return {Path(path) for path in re.findall(r"(?:=> |^\t)(/\S+) \(0x", said, re.MULTILINE)}
