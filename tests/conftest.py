"""Fixtures and checks for every tier: nothing may be left behind, and in CI nothing may be skipped."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

from tests.contract.container_engine import (
    container_engine,
    docker_engine,
    no_subreaper,
    podman_engine,
)
from tests.installations import installation, make_lock
from tests.waiting import wait_until

__all__ = ["container_engine", "docker_engine", "podman_engine"]

# pexpect forks this process. With its handlers gRPC starts threads in the child before the exec, which closes their
# descriptors: once in some hundred runs the child printed "epoll_wait error: Bad file descriptor" and hung.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
# Nor is garbage collected in the child: a server or channel of gRPC in it joins a thread, for ever, that is not there.
os.register_at_fork(before=gc.disable, after_in_parent=gc.enable)

# The same examples in each run, whatever the host's speed; `--hypothesis-profile default` draws others.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")

INSTALLATION_TIERS = ("e2e", "chaos")
INSTALLATION_FILES = (
    "test_gc_guards",
    "test_local_daemon",
    "test_sandbox_escapes",
    "test_state_watch",
)
"""Of other tiers: these start a daemon, look at what the installations of the host have left, or are another user of it."""
PROCESS_TIERS = ("integration", "e2e", "contract", "chaos")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let tests of whole installations run at the same time, but for those that look at all of the host. Outside of their time-out."""
    if not _has_installation(item.nodeid):
        return (yield)
    with installation(alone=item.get_closest_marker("alone") is not None), no_subreaper():
        return (yield)


def _has_installation(nodeid: str) -> bool:
    file = Path(nodeid.partition("::")[0])
    return file.parent.name in INSTALLATION_TIERS or file.stem in INSTALLATION_FILES


def pytest_configure(config: pytest.Config) -> None:
    """Undo what a caller in the background has done: a shell starts such with SIGINT ignored, nohup with SIGHUP, and children inherit it."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            default = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if default else signal.SIG_DFL)
    make_lock(config)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI a skipped test is a missing part of the machine, and that is a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("RUNNER_CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, which has every part: {report.longrepr}"


@pytest.fixture(autouse=True)
def no_process_left(request) -> Iterator[None]:
    """Fail a test of a process tier that leaves a child process behind."""
    tier = Path(str(request.fspath)).parent.name
    if tier not in PROCESS_TIERS:
        yield
        return
    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    yield

    def leftovers() -> list[str]:
        names = []
        for child in me.children(recursive=True):
            if child.pid in before:
                continue
            try:
                if child.status() != psutil.STATUS_ZOMBIE:
                    names.append(f"{child.pid} {' '.join(child.cmdline())}")
            except psutil.NoSuchProcess:
                continue
        return names

    wait_until(lambda: not leftovers(), 30, lambda: f"processes left behind: {leftovers()}")


@pytest.fixture
def reachable_dir() -> Iterator[Path]:
    """A folder that an unprivileged user can reach, for what root's sandboxes need."""
    path = Path("/var/tmp") / f"runner-test-{os.getpid()}-{os.urandom(4).hex()}"
    path.mkdir(mode=0o711)
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)
