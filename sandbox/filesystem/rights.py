"""What a command gives up before it begins, as steps of its list of calls: root's rights, root's user, all gains."""

from __future__ import annotations

import ctypes
import errno
import struct

from sandbox.filesystem.call_list import CallList, Step
from sandbox.process import JOB_UMASK, libc

_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LAST_CAPABILITY = 63
_KILL = 9
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_SOCK_FPROG = struct.Struct("<H6xQ")
_INSTRUCTION_BYTES = 8


def empty_bounding_set(calls: CallList) -> None:
    """Give up the capabilities that a program could bring back, all that this kernel knows. 0.1 ms.

    Not before bubblewrap, which gains nothing: its user namespace begins with a full set, and it empties that one.
    """
    for capability in range(_LAST_CAPABILITY + 1):
        asked = libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0)
        if asked < 0 and ctypes.get_errno() == errno.EINVAL:  # past the last one
            break
        calls.may("prctl", _PR_CAPBSET_DROP, capability)


def give_up_root(calls: CallList) -> None:
    """Give up what root has beside its user: groups, and capabilities that programs inherit."""
    calls.may("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    calls.must(Step.RIGHTS, "setgroups", 0, 0)


def become(calls: CallList, uid: int) -> None:
    """Change user and group; every capability goes with the last of root's ids."""
    calls.must(Step.RIGHTS, "setresgid", uid, uid, uid)
    calls.must(Step.RIGHTS, "setresuid", uid, uid, uid)


def gain_nothing(calls: CallList) -> None:
    """Make it that no program, setuid or not, has more rights than this one; Landlock and seccomp need it."""
    calls.must(Step.RIGHTS, "prctl", _PR_SET_NO_NEW_PRIVS, 1)


def share_files(calls: CallList) -> None:
    """Let others read what the command makes, as far as they come, whatever the umask of who started the runner."""
    calls.must(Step.RIGHTS, "umask", JOB_UMASK)


def die_with_parent(calls: CallList) -> None:
    """Let the kernel kill the process when the thread that spawned it ends. After ``become``, which takes it back."""
    calls.must(Step.RIGHTS, "prctl", _PR_SET_PDEATHSIG, _KILL)


def filter_calls(calls: CallList, program: bytes) -> None:
    """Put the process behind a filter of system calls; the last wall, since the filter may refuse what puts up others."""
    header = _SOCK_FPROG.pack(len(program) // _INSTRUCTION_BYTES, calls.data(program))
    calls.must(Step.WALLS, "prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, calls.data(header))
