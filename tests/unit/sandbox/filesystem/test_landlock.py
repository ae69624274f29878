"""Which rights belong to which Landlock ABI."""

from __future__ import annotations

import pytest

from sandbox.filesystem import landlock
from sandbox.filesystem.landlock import Fs, Net, Scope


@pytest.mark.parametrize(
    ("abi", "bits"),
    [(1, 0x1FFF), (2, 0x3FFF), (3, 0x7FFF), (4, 0x7FFF), (5, 0xFFFF), (6, 0xFFFF), (7, 0xFFFF)],
)
def test_file_rights(abi, bits):
    """The table of linux/landlock.h: a right that a kernel does not know is an error there."""
    assert landlock.handled_fs(abi) == bits


@pytest.mark.parametrize(("abi", "rights"), [(1, Net(0)), (3, Net(0)), (4, Net(3)), (7, Net(3))])
def test_network_rights(abi, rights):
    """TCP can be denied from ABI 4 on."""
    assert landlock.handled_net(abi) == rights


@pytest.mark.parametrize(("abi", "scopes"), [(5, Scope(0)), (6, Scope(3)), (7, Scope(3))])
def test_scopes(abi, scopes):
    """Signals and abstract sockets are held from ABI 6 on."""
    assert landlock.scoped(abi) == scopes


@pytest.mark.parametrize("abi", range(1, 8))
def test_own_folders_hold_no_devices(abi):
    """A workspace may hold everything but devices."""
    rights = landlock.writable(abi)
    assert not rights & (Fs.MAKE_CHAR | Fs.MAKE_BLOCK | Fs.IOCTL_DEV)
    assert rights & Fs.MAKE_REG
    assert rights & Fs.READ_FILE
    assert bool(rights & Fs.REFER) is (abi >= 2)


def test_reading_never_writes():
    """The rights on the system hold nothing that changes it."""
    assert landlock.READ == Fs.EXECUTE | Fs.READ_FILE | Fs.READ_DIR
