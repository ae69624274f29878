"""The filter of system calls that commands are behind (seccomp(2)), as the kernel reads it: no library assembles it.

A list of what is refused over "everything is allowed": what reaches parts of the kernel that no build needs (and where its
defects are found), what namespaces and Landlock do not cover, and what would take a wall down. Every refusal is an
error that programs know: EPERM, or ENOSYS where the C library then uses an older call.
"""

from __future__ import annotations

import errno
import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.filesystem.system_calls import AUDIT_ARCH_X86_64, Machine

_INSTRUCTION = struct.Struct("<HBBI")
_LOAD, _AND, _EQUAL, _AT_LEAST, _ALWAYS, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x05, 0x06
_FARTHEST = 255
"""How many instructions a jump on a condition can leave out."""
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Where they are in struct seccomp_data."""
_ALLOW, _ERROR, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_X32 = 0x40000000
_NEW_NAMESPACES = 0x7E020000
"""All CLONE_NEW* of clone(2) and unshare(2) but CLONE_NEWTIME, which clone takes for a signal."""
_NEW_TIME = 0x80
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_ADDR_NO_RANDOMIZE, _ASK_PERSONALITY = 0x0040000, 0xFFFFFFFF
_PRIO_USER, _IOPRIO_PROCESS = 2, 1
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
_SOCKET_TYPE = 0xF
"""The kind of a socket without the flags that it is made with."""
_STREAM, _PACKETS = 1, 5
_UNUSUAL = (4, 5, 6, 10)
"""Kinds of sockets of IP that lead to RDS, SCTP, DCCP and packets of the link."""
_PROTOCOLS = (0, 1, 6, 17, 58, 262)
"""What is usual, ICMP, TCP, UDP, ICMPv6 and MPTCP; the kernel loads a module for each other one that is asked for."""
_NETLINK_ROUTE = 0

REFUSED = (
    # Mounts, roots and namespaces.
    "mount", "umount2", "pivot_root", "chroot", "setns",
    # The keys of the user, which no namespace hides.
    "add_key", "request_key", "keyctl",
    # Where the kernel's defects are.
    "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
    # The machine as a whole.
    "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot",
    "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "syslog", "sethostname", "setdomainname",
    "settimeofday", "clock_settime", "adjtimex", "clock_adjtime",
    # Other processes' memory and descriptors, and files by what is no path.
    "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "open_by_handle_at", "fanotify_init",
    # The hardware.
    "iopl", "ioperm", "modify_ldt", "move_pages", "migrate_pages", "mbind", "set_mempolicy",
    "set_mempolicy_home_node", "memfd_secret",
)  # fmt: skip
UNKNOWN = (
    "clone3", "open_tree", "open_tree_attr", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick",
    "mount_setattr", "listmount", "statmount",
)  # fmt: skip
"""Told to be missing: clone3 because a filter cannot see its flags."""
SHARED_IPC = (
    "shmget", "shmat", "shmctl", "semget", "semop", "semtimedop", "semctl", "msgget", "msgsnd",
    "msgrcv", "msgctl", "mq_open", "mq_unlink",
)  # fmt: skip
"""System V and POSIX objects, which have names of their own."""


@dataclass(frozen=True, slots=True)
class SyscallPolicy:
    """What differs between filters."""

    families: frozenset[int]
    """The kinds of sockets that can be made."""
    own_namespaces: bool
    """Whether the IPC objects and the processes that a command can name are its own."""


@functools.cache
def program(machine: Machine, policy: SyscallPolicy) -> bytes:
    """Return the filter as an array of struct sock_filter.

    A search by number, not a list: whenever a filter is put up the kernel goes through it once for each number that
    there is, to know what it need not ask later, and that is most of what a filter costs.
    """
    cases = {name: [_refuse(errno.EPERM)] for name in REFUSED}
    cases |= {name: [_refuse(errno.ENOSYS)] for name in UNKNOWN}
    cases |= _by_arguments(policy.families)
    if not policy.own_namespaces:
        cases |= {name: [_refuse(errno.ENOSYS)] for name in SHARED_IPC}
        cases |= _of_others()
    by_number = {machine.calls[name]: then for name, then in cases.items() if name in machine.calls}
    if machine.audit_arch == AUDIT_ARCH_X86_64:
        # Numbers of x32, which a table of x86-64 does not hold.
        by_number[_X32] = [_refuse(errno.ENOSYS)]
    steps = [
        *_load(_ARCHITECTURE),
        *_unless_equal(machine.audit_arch, _KILL_PROCESS),
        *_load(_NUMBER),
        *_search(_ranges(by_number)),
    ]
    return b"".join(steps)


def _ranges(by_number: dict[int, list[bytes]]) -> list[tuple[int, list[bytes]]]:
    """Return what is done from which number on, up to the next one: nothing, where no call is named. x32 has no end."""
    found: list[tuple[int, list[bytes]]] = [(0, [_return(_ALLOW)])]
    for number, then in sorted(by_number.items()):
        if found[-1][0] == number:
            found.pop()
        if not found or found[-1][1] != then:
            found.append((number, then))
        if number != _X32:
            found.append((number + 1, [_return(_ALLOW)]))
    return found


def _search(ranges: Sequence[tuple[int, list[bytes]]]) -> list[bytes]:
    """Return what finds the range of the number that is loaded, and decides."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    low, high = _search(ranges[:middle]), _search(ranges[middle:])
    first = ranges[middle][0]
    if len(low) <= _FARTHEST:
        return [_jump(_AT_LEAST, first, len(low), 0), *low, *high]
    return [_jump(_AT_LEAST, first, 0, 1), _jump(_ALWAYS, len(low), 0, 0), *low, *high]


def _by_arguments(families: frozenset[int]) -> dict[str, list[bytes]]:
    """Return what is refused with some arguments only."""
    spaces = [*_load_argument(0), _both(_NEW_NAMESPACES), *_unless_equal(0, _error(errno.EPERM))]
    also_time = [
        *_load_argument(0),
        _both(_NEW_NAMESPACES | _NEW_TIME),
        *_unless_equal(0, _error(errno.EPERM)),
    ]
    pushes = [*_load_argument(1)]
    for request in (_TIOCSTI, _TIOCLINUX):
        pushes += [_jump(_EQUAL, request, 0, 1), _refuse(errno.EPERM)]
    as_usual = _only_when(0, (0, _ADDR_NO_RANDOMIZE, _ASK_PERSONALITY), errno.EPERM)
    return {
        "clone": [*spaces, _return(_ALLOW)],
        "unshare": [*also_time, _return(_ALLOW)],
        "ioctl": [*pushes, _return(_ALLOW)],
        "personality": as_usual,
        "socket": _sockets(families),
        "socketpair": _connected_pairs(any_type=UNIX in families),
    }


def _sockets(families: frozenset[int]) -> list[bytes]:
    """Return what lets sockets of these families be made: of IP those of its usual protocols, of netlink what tells the addresses."""
    usual: list[bytes] = []
    for kind in _UNUSUAL:
        usual += [_jump(_EQUAL, kind, 0, 1), _refuse(errno.ESOCKTNOSUPPORT)]
    usual = [*_load_argument(1), _both(_SOCKET_TYPE), *usual]
    usual += _only_when(2, _PROTOCOLS, errno.EPROTONOSUPPORT)
    route = _only_when(2, (_NETLINK_ROUTE,), errno.EAFNOSUPPORT)
    answers = {UNIX: [_return(_ALLOW)], INET: usual, INET6: usual, NETLINK: route}
    steps = [*_load_argument(0)]
    for family in sorted(families):
        answer = answers[family]
        steps += [_jump(_EQUAL, family, 0, len(answer)), *answer]
    return [*steps, _refuse(errno.EAFNOSUPPORT)]


def _connected_pairs(*, any_type: bool) -> list[bytes]:
    """Return what lets unix sockets alone be made in pairs; of other families a pair is made first, and refused then.

    One of datagrams is not bound to its pair for good: it can be given a name, and send to any other. So where no socket with
    a name may be reached, only those pass that stay connected.
    """
    steps = [*_load_argument(0), _jump(_EQUAL, UNIX, 1, 0), _refuse(errno.EAFNOSUPPORT)]
    if any_type:
        return [*steps, _return(_ALLOW)]
    steps += [*_load_argument(1), _both(_SOCKET_TYPE)]
    for kind in (_STREAM, _PACKETS):
        steps += [_jump(_EQUAL, kind, 0, 1), _return(_ALLOW)]
    return [*steps, _refuse(errno.EAFNOSUPPORT)]


def _of_others() -> dict[str, list[bytes]]:
    """Return what is refused on any process but the caller: others of its user are the host's.

    Limits may still be asked for, and priorities of an own process group set.
    """
    refuse = [_refuse(errno.EPERM)]
    names = ("sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr")
    cases = dict.fromkeys(names, _only_when(0, (0,), errno.EPERM))
    own = [*_load_argument(0), _jump(_EQUAL, 0, 0, 1), _return(_ALLOW)]
    asks = [*_load_argument(2), _jump(_EQUAL, 0, 0, 3)]
    asks += [*_load_argument(2, high=True), _jump(_EQUAL, 0, 0, 1), _return(_ALLOW)]
    cases["prlimit64"] = [*own, *asks, *refuse]
    own = [*_load_argument(1), _jump(_EQUAL, 0, 0, 3)]
    own += [*_load_argument(0), _jump(_EQUAL, _PRIO_USER, 1, 0), _return(_ALLOW)]
    cases["setpriority"] = [*own, *refuse]
    own = [*_load_argument(1), _jump(_EQUAL, 0, 0, 3)]
    own += [*_load_argument(0), _jump(_EQUAL, _IOPRIO_PROCESS, 0, 1), _return(_ALLOW)]
    cases["ioprio_set"] = [*own, *refuse]
    return cases


def _only_when(argument: int, values: tuple[int, ...], number: int) -> list[bytes]:
    """Return what allows these values of an argument, and refuses all others."""
    steps = [*_load_argument(argument)]
    for value in values:
        steps += [_jump(_EQUAL, value, 0, 1), _return(_ALLOW)]
    return [*steps, _refuse(number)]


def _unless_equal(value: int, action: int) -> list[bytes]:
    return [_jump(_EQUAL, value, 1, 0), _return(action)]


def _load(offset: int) -> list[bytes]:
    return [_INSTRUCTION.pack(_LOAD, 0, 0, offset)]


def _load_argument(index: int, *, high: bool = False) -> list[bytes]:
    """Load the low half of an argument; all machines that are known here begin with it."""
    return _load(_ARGUMENTS + 8 * index + (4 if high else 0))


def _both(mask: int) -> bytes:
    return _INSTRUCTION.pack(_AND, 0, 0, mask)


def _jump(code: int, value: int, then: int, otherwise: int) -> bytes:
    return _INSTRUCTION.pack(code, then, otherwise, value)


def _return(action: int) -> bytes:
    return _INSTRUCTION.pack(_RETURN, 0, 0, action)


def _error(number: int) -> int:
    return _ERROR | number


def _refuse(number: int) -> bytes:
    return _return(_error(number))
