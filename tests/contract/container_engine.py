"""A container engine for the tests, started once per run and only if a test wants one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.container.settings import ContainerSettings, PullPolicy
from tests.contract.engine_kinds import DOCKER, PODMAN, missing_part

IMAGE = "runner-test:busybox"
EMPTY_IMAGE = "runner-test:empty"
_SET_SUBREAPER, _GET_SUBREAPER = 36, 37


def settings_for(root: Path, **changes: object) -> ContainerSettings:
    """Return how a provider reaches the engine below a folder."""
    values = {
        "image": IMAGE,
        "pull": PullPolicy.NEVER,
        "engine": f"unix://{root}/sock",
        "network": "none",  # Podman would make one of this host's
    }
    return ContainerSettings(**{**values, **changes})  # type: ignore[arg-type]


@contextmanager
def no_subreaper() -> Iterator[None]:
    """Let an orphan go to init meanwhile: tests look at every child of this process, and an engine or a daemon has many."""
    libc = ctypes.CDLL(None)
    was = ctypes.c_int()
    libc.prctl(_GET_SUBREAPER, ctypes.byref(was), 0, 0, 0)
    libc.prctl(_SET_SUBREAPER, 0, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_SET_SUBREAPER, was.value, 0, 0, 0)


@dataclass
class RunningEngine:
    """An engine that can be killed, as by accident, and started again."""

    root: Path
    keeper: Callable[[bytes], None]

    def kill(self) -> None:
        """Kill the engine; what it has started lives on without it."""
        self.keeper(b"kill\n")

    def start(self) -> None:
        """Start it again, with all that it had."""
        self.keeper(b"start\n")


@contextmanager
def running_engine(kind: str = DOCKER, *, below_us: bool = False) -> Iterator[Path]:
    """Yield the folder of an engine that runs; it is gone, with all that it made, afterwards."""
    with mortal_engine(kind, below_us=below_us) as engine:
        yield engine.root


@contextmanager
def mortal_engine(kind: str = DOCKER, *, below_us: bool = False) -> Iterator[RunningEngine]:
    """Yield the same as something that can be killed; ``below_us``: of a benchmark, which adds up what all below it take."""
    root = Path("/var/tmp") / f"runner-engine-{os.getpid()}-{os.urandom(3).hex()}"
    root.mkdir(mode=0o700)
    held, hold = os.pipe()
    said, say = os.pipe()
    argv = [
        "setsid",
        "--fork",
        sys.executable,
        "-m",
        "tests.contract.engine_keeper",
        str(root),
        kind,
    ]
    with contextlib.nullcontext() if below_us else no_subreaper():
        subprocess.run(argv, stdin=held, stdout=say, check=True)
    os.close(held)
    os.close(say)
    with contextlib.closing(os.fdopen(said, "rb")) as lines:

        def order(word: bytes) -> None:
            os.write(hold, word)
            if lines.readline() != b"done\n":
                raise RuntimeError("the container engine did not obey; its log is above")

        try:
            if lines.readline() != b"ready\n":
                raise RuntimeError("the container engine did not start; its log is above")
            yield RunningEngine(root, order)
        finally:
            os.close(hold)
            lines.read()  # ends with the keeper


def _shared(kind: str) -> Iterator[Path]:
    if reason := missing_part(kind):
        pytest.skip(reason)
    with running_engine(kind) as root:
        yield root


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Path]:
    """The Docker that all tests share."""
    yield from _shared(DOCKER)


@pytest.fixture(scope="session")
def podman_engine() -> Iterator[Path]:
    """The Podman that all tests share."""
    yield from _shared(PODMAN)


@pytest.fixture(scope="session")
def container_engine(request: pytest.FixtureRequest) -> Path:
    """The engine of the kind that a test is parametrised with, as all contract tests are; Docker for others."""
    root: Path = request.getfixturevalue(f"{getattr(request, 'param', DOCKER)}_engine")
    return root


on_docker = pytest.mark.parametrize("container_engine", [DOCKER], indirect=True)
"""For contract tests of what is peculiar to Docker."""
