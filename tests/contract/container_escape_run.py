"""Runs the cases of ``tests/cases/escape*.json`` in containers and prints what is wrong with each, as JSON.

``python -m tests.contract.container_escape_run ENGINE [CASE…]``: a program of its own, because some cases go after whoever
starts them. ENGINE is the folder of a running engine, which gets an image of this host's Python and git.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent_runner.job_spec import JobSpec
from daemon.errors import DaemonError
from daemon.jobfile.loader import load_job_file
from sandbox.base import SandboxRequest
from sandbox.container.provider import ContainerProvider
from sandbox.env import JOB_UID
from sandbox.process import become_subreaper
from tests.contract.container_engine import settings_for
from tests.contract.engine_keeper import busybox_root, import_image
from tests.contract.escape_case import EscapeCase
from tests.contract.escape_run import CASE_S, load, several_at_a_time

IMAGE = "escapes"
NO_DUTY = frozenset({"n/a", "gap"})
AT_ONCE = 3
PYTHON = Path("/usr/lib/python3.11")
LEFT_OUT = ("test", "idlelib", "lib2to3", "__pycache__", "dist-packages", "ensurepip", "config-3")


class ContainerEscapeCase(EscapeCase):
    """A case in a container. Its workspace is a volume, which root sees on the host as well."""

    def _find_place(self) -> int:
        self.workspace = self._root / "data" / "volumes" / f"runner-case-{self.id}"
        for folder in (self.workspace.parent, self.workspace):
            folder.chmod(0o711)  # steps of a case on the host are the job's user's
        self.source = self.workspace / "_data" / "src"
        return JOB_UID

    async def _create_refused(self) -> list[str]:
        """Look for a way to ask for less than all walls: there is none in a request, nor in a job file."""
        for name in self.operation.get("container", ()):
            fields = {*SandboxRequest.__dataclass_fields__, *JobSpec.__dataclass_fields__}
            if name in fields:
                self.problems.append(f"a job can ask for {name}")
            text = f"job_command: x\nsandbox: {{{name}: true}}\n"
            try:
                load_job_file(text.encode(), "job.yaml", Path("/"))
                self.problems.append(f"a job file can ask for {name}")
            except DaemonError:
                pass
        return self.problems


def cases() -> list[dict[str, Any]]:
    """Return those that a container has to withstand."""
    return [case for case in load() if case["tiers"].get("container", "n/a") not in NO_DUTY]


def tools() -> bytes:
    """Return a root file system of busybox, Python and git."""
    content = io.BytesIO(busybox_root())
    with tarfile.open(fileobj=content, mode="a") as tar:
        tar.dereference = True
        programs = [Path("/usr/bin/python3.11"), Path("/usr/bin/git")]
        libraries = _libraries([*programs, *PYTHON.glob("lib-dynload/*.so")])
        for path in [*map(str, programs), *libraries]:
            tar.add(path, path.lstrip("/"))
        link = tarfile.TarInfo("usr/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, "python3.11"
        tar.addfile(link)
        tar.add(PYTHON, str(PYTHON).lstrip("/"), filter=_wanted)
    return content.getvalue()


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    below = entry.name.split("/")[3:]
    return None if any(part.startswith(LEFT_OUT) for part in below[:1]) else entry


def _libraries(programs: list[Path]) -> Iterator[str]:
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    words = (word for line in said.splitlines() for word in line.split())
    yield from sorted({word for word in words if word.startswith("/lib")})


async def judge(case: Mapping[str, Any], provider: ContainerProvider, root: Path) -> list[str]:
    """Run one case; return what is wrong with it."""
    try:
        async with asyncio.timeout(CASE_S):
            return await ContainerEscapeCase(case, provider, root).run()
    except Exception as error:  # noqa: BLE001 - what broke is what the test shows
        return [f"{type(error).__name__}: {error}"]


async def run(root: Path, wanted: list[str]) -> dict[str, list[str]]:
    """Run the cases that are wanted, or all, several at a time; return what is wrong with each."""
    settings = settings_for(root, image=f"runner-test:{IMAGE}")
    provider = ContainerProvider(settings, owner_label=f"escape-{os.getpid()}")
    await provider.probe()

    async def one(case: Mapping[str, Any]) -> list[str]:
        return await judge(case, provider, root)

    chosen = [case for case in cases() if not wanted or case["id"] in wanted]
    found = await several_at_a_time(chosen, one, AT_ONCE)
    await provider.close()
    return found


if __name__ == "__main__":
    become_subreaper()  # of what the peers of cases leave
    engine = Path(sys.argv[1])
    for folder in (engine, engine / "data"):
        folder.chmod(0o711)
    import_image(engine / "sock", IMAGE, tools(), "ENV PATH=/usr/bin:/bin:/usr/sbin:/sbin")
    json.dump(asyncio.run(run(engine, sys.argv[2:])), sys.stdout)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
