"""Landlock by its three system calls (landlock(7)): which rights a kernel knows, and a set of rules.

A ruleset allows: what is below one of its paths with a right is permitted, everything else that it
handles is denied, for the thread that applies it and all its descendants, for good. It is applied by a step of a
command's list of calls, landlock_restrict_self(2).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
from enum import IntFlag

from sandbox.errors import SandboxUnavailableError
from sandbox.process import libc

_SYS_CREATE_RULESET, _SYS_ADD_RULE = 444, 445
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_LATEST_ABI = 7
TRUNCATE_ABI = 3
"""Before it, no rule keeps files outside from being cut by truncate(2)."""


class Fs(IntFlag):
    """Rights on files and folders, as in linux/landlock.h."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


class Net(IntFlag):
    """Rights on TCP ports."""

    BIND_TCP = 1 << 0
    CONNECT_TCP = 1 << 1


class Scope(IntFlag):
    """What must not reach processes outside."""

    ABSTRACT_UNIX_SOCKET = 1 << 0
    SIGNAL = 1 << 1


_FIRST_FS = Fs((1 << 13) - 1)
_ON_FILES = Fs.EXECUTE | Fs.WRITE_FILE | Fs.READ_FILE | Fs.TRUNCATE | Fs.IOCTL_DEV
READ = Fs.EXECUTE | Fs.READ_FILE | Fs.READ_DIR
DEVICE = Fs.READ_FILE | Fs.WRITE_FILE


@functools.cache
def handled_fs(abi: int) -> Fs:
    """Return the file rights that a kernel of this ABI can deny."""
    rights = _FIRST_FS
    for since, right in ((2, Fs.REFER), (TRUNCATE_ABI, Fs.TRUNCATE), (5, Fs.IOCTL_DEV)):
        if abi >= since:
            rights |= right
    return rights


def handled_net(abi: int) -> Net:
    """Return the network rights that a kernel of this ABI can deny."""
    return Net.BIND_TCP | Net.CONNECT_TCP if abi >= 4 else Net(0)  # noqa: PLR2004  # ABI 4


def scoped(abi: int) -> Scope:
    """Return the scopes that a kernel of this ABI knows."""
    return Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL if abi >= 6 else Scope(0)  # noqa: PLR2004  # ABI 6


@functools.cache
def writable(abi: int) -> Fs:
    """Return all rights on an own folder, but making and driving devices."""
    return handled_fs(abi) & ~(Fs.MAKE_CHAR | Fs.MAKE_BLOCK | Fs.IOCTL_DEV)


class _RulesetAttr(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def kernel_abi() -> int:
    """Return the Landlock ABI of this kernel, at most the newest that is known here; 0 for none."""
    found = libc.syscall(_SYS_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    return max(0, min(int(found), _LATEST_ABI))


class Rule:
    """Rights on what an open descriptor leads to, which stays open; made once for any number of rulesets."""

    def __init__(self, abi: int, path_fd: int, rights: Fs) -> None:
        rights &= handled_fs(abi)
        if not stat.S_ISDIR(os.fstat(path_fd).st_mode):
            rights &= _ON_FILES
        self.path_fd = path_fd
        self._attr = _PathBeneathAttr(allowed_access=rights, parent_fd=path_fd)
        self.reference = ctypes.byref(self._attr)


class Ruleset:
    """Rules under construction; a process that applies them is behind them for good. Closed by its owner."""

    def __init__(self, abi: int, *, deny_tcp: bool) -> None:
        self._abi = abi
        attr = _RulesetAttr(
            handled_access_fs=handled_fs(abi),
            handled_access_net=handled_net(abi) if deny_tcp else 0,
            scoped=scoped(abi),
        )
        self.fd = _created(attr, abi)

    def allow(self, path_fd: int, rights: Fs) -> None:
        """Permit these rights on what is open, and on everything below it if it is a folder."""
        self.add(Rule(self._abi, path_fd, rights))

    def add(self, rule: Rule) -> None:
        """Permit what a rule says."""
        _checked(libc.syscall(_SYS_ADD_RULE, self.fd, _RULE_PATH_BENEATH, rule.reference, 0))

    def allow_path(self, path: str | os.PathLike[str], rights: Fs) -> bool:
        """Permit these rights on a path, following links; tell whether it exists."""
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            self.allow(fd, rights)
        finally:
            os.close(fd)
        return True

    def copy(self) -> Ruleset:
        """Return the same rules with a descriptor of their own, to be applied; what is added to either is added to both."""
        copied = object.__new__(Ruleset)
        copied._abi = self._abi
        copied.fd = os.dup(self.fd)
        return copied

    def close(self) -> None:
        """Give the descriptor back. Idempotent; what was restricted stays so."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class AbstractSocketScope:
    """Rules that put abstract unix sockets of all others out of reach, and deny nothing else.

    Not even mounting, which every rule on files does. Nothing on a kernel without scopes. Closed by its owner.
    """

    def __init__(self, abi: int) -> None:
        wanted = _RulesetAttr(scoped=Scope.ABSTRACT_UNIX_SOCKET)
        self.fd = _created(wanted, abi) if scoped(abi) else -1
        """Negative for none."""

    def close(self) -> None:
        """Give the descriptor back. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _created(attr: _RulesetAttr, abi: int) -> int:
    """Return the descriptor of an empty ruleset."""
    size = ctypes.c_size_t(_attr_size(abi))
    fd = _checked(libc.syscall(_SYS_CREATE_RULESET, ctypes.byref(attr), size, 0))
    os.set_inheritable(fd, False)  # takes no keyword
    return fd


def _attr_size(abi: int) -> int:
    """Return how much of the structure a kernel knows; a longer one must be zero there, a shorter is fine."""
    if abi >= 6:  # noqa: PLR2004  # scopes
        return ctypes.sizeof(_RulesetAttr)
    return _RulesetAttr.scoped.offset if abi >= 4 else _RulesetAttr.handled_access_net.offset  # noqa: PLR2004  # network


def _checked(result: int) -> int:
    if result >= 0:
        return result
    number = ctypes.get_errno()
    reason = "is switched off" if number == errno.EOPNOTSUPP else os.strerror(number)
    raise SandboxUnavailableError(f"Landlock: {reason}")
