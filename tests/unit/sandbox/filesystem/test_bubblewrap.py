"""The command line of bubblewrap."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sandbox.base import Network
from sandbox.errors import SandboxUnavailableError
from sandbox.filesystem import bubblewrap
from sandbox.filesystem.workspace import Workspace

WORKSPACE = Workspace(Path("/w/a-1"), None)


def pairs(options, name, width=2):
    """Return the arguments of every use of an option."""
    found = [i for i, option in enumerate(options) if option == name]
    return [tuple(options[i + 1 : i + 1 + width]) for i in found]


def test_walls_of_every_sandbox():
    """The namespaces, the dropped rights and the guards of a leftover are always there."""
    options = bubblewrap.wall_options(Path("/e"), disable_userns=True)
    for needed in (
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *("--disable-userns", "--clearenv", "--die-with-parent", "--new-session"),
    ):
        assert needed in options
    assert pairs(options, "--cap-drop", 1) == [("ALL",)]
    assert pairs(options, "--uid", 1) == [("1000",)]


def test_nothing_of_the_host_is_writable():
    """Only the workspace is bound for writing, and the root is sealed last."""
    walls = bubblewrap.wall_options(Path("/e"), disable_userns=False)
    assert "--bind" not in walls
    assert ("/usr", "/usr") in pairs(walls, "--ro-bind")
    assert ("/e", "/etc") in pairs(walls, "--ro-bind")
    own = bubblewrap.workspace_options(WORKSPACE, Network.ON)
    assert pairs(own, "--bind") == [
        ("/w/a-1/tmp", "/tmp"),
        ("/w/a-1/home", "/home/job"),
        ("/w/a-1/job", "/job"),
    ]
    assert pairs(own, "--ro-bind") == [("/w/a-1/job/ci", "/job/ci")]
    assert own[-2:] == ["--remount-ro", "/"]


@pytest.mark.parametrize(("network", "unshared"), [(Network.ON, False), (Network.OFF, True)])
def test_network(network, unshared):
    """The network namespace follows the job."""
    options = bubblewrap.workspace_options(WORKSPACE, network)
    assert ("--unshare-net" in options) is unshared


def test_options_travel_as_blocks():
    """Values may hold newlines and bytes that are no text."""
    env = {"A": "x\ny", "B": os.fsdecode(b"\xff")}
    block = bubblewrap.block(bubblewrap.command_options(env, "/job/src"))
    assert block == b"--chdir\0/job/src\0--setenv\0A\0x\ny\0--setenv\0B\0\xff\0"


@pytest.mark.parametrize(
    ("mode", "uid"),
    [(stat.S_IFREG | 0o755, 1), (stat.S_IFREG | 0o775, 0), (stat.S_IFREG | 0o4755, 0)],
)
def test_untrusted_programs_are_refused(monkeypatch, mode, uid):
    """A launcher that others could have replaced, or that is setuid, is not run."""
    found = os.stat_result((mode, 0, 0, 1, uid, 0, 0, 0, 0, 0))
    monkeypatch.setattr(os, "stat", lambda _: found)
    with pytest.raises(SandboxUnavailableError, match="/x/bwrap"):
        bubblewrap.trusted_program("/x/bwrap")


def test_missing_program_is_named(tmp_path):
    """A missing launcher is an error that says what to install."""
    with pytest.raises(SandboxUnavailableError, match="bwrap is missing"):
        bubblewrap.trusted_program(str(tmp_path / "bwrap"))
