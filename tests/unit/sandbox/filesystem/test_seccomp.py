"""The filter of system calls, run by an interpreter of its own on numbers and arguments."""

from __future__ import annotations

import errno
import struct

import pytest

from sandbox.filesystem.seccomp import (
    INET,
    INET6,
    NETLINK,
    REFUSED,
    SHARED_IPC,
    UNIX,
    UNKNOWN,
    SyscallPolicy,
    program,
)
from sandbox.filesystem.system_calls import MACHINES, Machine

ALLOW, KILL = 0x7FFF0000, 0x80000000
EVERY_FAMILY = frozenset({UNIX, INET, INET6, NETLINK})
INSIDE = SyscallPolicy(families=EVERY_FAMILY, own_namespaces=True)
OUTSIDE = SyscallPolicy(families=frozenset({INET, INET6, NETLINK}), own_namespaces=False)
WITHOUT_NETWORK = SyscallPolicy(families=frozenset(), own_namespaces=False)
LARGEST_PROGRAM = 4096


@pytest.fixture(params=sorted(MACHINES))
def machine(request) -> Machine:
    """Every machine whose numbers are known."""
    return MACHINES[request.param]


def verdict(filter_program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Return what the filter says of one call, as the kernel's interpreter does."""
    return answered(filter_program, architecture, number, *arguments)[0]


def answered(
    filter_program: bytes, architecture: int, number: int, *arguments: int
) -> tuple[int, int]:
    """Return what the filter says of one call, and after how many instructions."""
    filled = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *filled)
    steps = [
        struct.unpack_from("<HBBI", filter_program, at) for at in range(0, len(filter_program), 8)
    ]
    at = accumulator = count = 0
    while True:
        code, then, otherwise, value = steps[at]
        at += 1
        count += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x54:
            accumulator &= value
        elif code == 0x15:
            at += then if accumulator == value else otherwise
        elif code == 0x35:
            at += then if accumulator >= value else otherwise
        elif code == 0x05:
            at += value
        elif code == 0x06:
            return value, count
        else:
            raise AssertionError(hex(code))


def answer(machine: Machine, policy: SyscallPolicy, name: str, *arguments: int) -> int:
    """Return the error of a call by its name, or 0."""
    masked = [argument & (1 << 64) - 1 for argument in arguments]
    found = verdict(program(machine, policy), machine.audit_arch, machine.calls[name], *masked)
    return 0 if found == ALLOW else found ^ 0x00050000


@pytest.mark.parametrize("policy", [INSIDE, OUTSIDE, WITHOUT_NETWORK])
def test_every_call_gets_an_answer(machine, policy):
    """No path through the filter leaves it, and it is no longer than the kernel takes."""
    filter_program = program(machine, policy)
    assert len(filter_program) // 8 <= LARGEST_PROGRAM
    for number in range(600):
        for argument in (0, 1, 2, 3, 16, 0x10000000, 0x5412):
            arguments = (argument, argument, argument)
            found = verdict(filter_program, machine.audit_arch, number, *arguments)
            assert found == ALLOW or found >> 16 == 5


def test_a_call_that_is_not_named_is_allowed_after_few_instructions(machine):
    """The kernel asks once for each number whenever a filter is put up: a list would take most of a command's overhead."""
    named = {machine.calls[name] for name in machine.calls}
    for number in set(range(600)) - named:
        found, count = answered(program(machine, OUTSIDE), machine.audit_arch, number)
        assert (found, count <= 14) == (ALLOW, True)


def test_other_architectures_are_killed(machine):
    """The other half of a processor has other numbers for the same calls."""
    filter_program = program(machine, INSIDE)
    for architecture in (0x40000003, 0x40000028, 0, 0xFFFFFFFF):
        assert verdict(filter_program, architecture, 0) == KILL


def test_numbers_of_x32_are_unknown():
    """They reach the same kernel under numbers that no list has."""
    machine = MACHINES["x86_64"]
    for number in (0x40000000, 0x40000000 | machine.calls["ptrace"], 0xFFFFFFFF):
        found = verdict(program(machine, INSIDE), machine.audit_arch, number)
        assert found == 0x00050000 | errno.ENOSYS


def test_what_is_always_refused(machine):
    """Whatever its arguments."""
    for names, number in ((REFUSED, errno.EPERM), (UNKNOWN, errno.ENOSYS)):
        for name in names:
            if name in machine.calls:
                assert answer(machine, INSIDE, name, 1, 2, 3) == number, name


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("clone", (0x3D0F00,), 0),  # a thread
        ("clone", (17,), 0),  # a child
        ("clone", (0x10000000 | 17,), errno.EPERM),
        ("clone", (0x00020000,), errno.EPERM),
        ("unshare", (0x600,), 0),
        ("unshare", (0x80,), errno.EPERM),
        ("unshare", (0x40000000,), errno.EPERM),
        ("ioctl", (0, 0x5401), 0),
        ("ioctl", (0, 0x5412), errno.EPERM),
        ("ioctl", (0, 0x5412 | 1 << 32), errno.EPERM),
        ("ioctl", (0, 0x541C), errno.EPERM),
        ("personality", (0xFFFFFFFF,), 0),
        ("personality", (0x40000,), 0),
        ("personality", (0x0400000,), errno.EPERM),
        ("socket", (UNIX, 1, 0), 0),
        ("socket", (INET6, 2, 17), 0),
        ("socket", (INET, 1 | 0x80800, 0), 0),
        ("socket", (INET, 1, 262), 0),
        ("socket", (INET, 2, 1), 0),
        ("socket", (INET6, 3, 58), 0),
        ("socket", (UNIX, 5, 0), 0),
        ("socket", (INET, 5, 0), errno.ESOCKTNOSUPPORT),  # SCTP
        ("socket", (INET, 1, 132), errno.EPROTONOSUPPORT),
        ("socket", (INET6, 6 | 0x80000, 33), errno.ESOCKTNOSUPPORT),  # DCCP
        ("socket", (INET, 10, 0x0300), errno.ESOCKTNOSUPPORT),  # AF_PACKET by its old name
        ("socket", (INET, 1, 256), errno.EPROTONOSUPPORT),  # SMC
        ("socket", (INET, 2, 136), errno.EPROTONOSUPPORT),  # UDP-Lite
        ("socket", (INET6, 2, 115), errno.EPROTONOSUPPORT),  # L2TP
        ("socket", (NETLINK, 3, 0), 0),
        ("socket", (NETLINK, 3, 9), errno.EAFNOSUPPORT),
        ("socket", (40, 1, 0), errno.EAFNOSUPPORT),
        ("socket", (38, 5, 0), errno.EAFNOSUPPORT),
        ("socket", (17, 3, 0), errno.EAFNOSUPPORT),
        ("socketpair", (UNIX, 1, 0), 0),
        ("socketpair", (UNIX, 2 | 0x80000, 0), 0),
        ("socketpair", (NETLINK, 3, 0), errno.EAFNOSUPPORT),
        ("socketpair", (30, 1, 0), errno.EAFNOSUPPORT),
        ("socketpair", (40, 1, 0), errno.EAFNOSUPPORT),
        ("ptrace", (0,), 0),
        ("shmget", (1,), 0),
        ("setpriority", (2, 0), 0),
    ],
)
def test_arguments_decide_inside_namespaces(machine, name, arguments, expected):
    """What a build needs of a call stays."""
    assert answer(machine, INSIDE, name, *arguments) == expected


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("socket", (UNIX, 1, 0), errno.EAFNOSUPPORT),
        ("socket", (INET, 1, 0), 0),
        ("socketpair", (UNIX, 1 | 0x80800, 0), 0),
        ("socketpair", (UNIX, 5, 0), 0),
        ("socketpair", (UNIX, 2, 0), errno.EAFNOSUPPORT),
        ("socketpair", (UNIX, 3 | 0x80000, 0), errno.EAFNOSUPPORT),
        ("socketpair", (INET, 1, 0), errno.EAFNOSUPPORT),
        ("prlimit64", (0, 7, 1 << 40, 0), 0),
        ("prlimit64", (5, 7, 0, 1 << 40), 0),
        ("prlimit64", (5, 7, 1 << 40, 0), errno.EPERM),
        ("prlimit64", (5, 7, 8, 0), errno.EPERM),
        ("setpriority", (0, 0, 5), 0),
        ("setpriority", (1, 0, 5), 0),
        ("setpriority", (0, 5, 5), errno.EPERM),
        ("setpriority", (2, 0, 5), errno.EPERM),
        ("ioprio_set", (1, 0, 5), 0),
        ("ioprio_set", (1, 5, 5), errno.EPERM),
        ("ioprio_set", (3, 0, 5), errno.EPERM),
        ("sched_setaffinity", (0,), 0),
        ("sched_setaffinity", (5,), errno.EPERM),
        ("sched_setscheduler", (5,), errno.EPERM),
    ],
)
def test_processes_of_one_user_are_safe_from_each_other(machine, name, arguments, expected):
    """Where neither a namespace nor a user of its own keeps them apart."""
    assert answer(machine, OUTSIDE, name, *arguments) == expected


def test_without_a_network_there_is_no_socket_at_all(machine):
    """And System V objects, which no rule covers, are told to be missing."""
    for name in SHARED_IPC:
        assert answer(machine, WITHOUT_NETWORK, name) == errno.ENOSYS
    for family in EVERY_FAMILY:
        assert answer(machine, WITHOUT_NETWORK, "socket", family) == errno.EAFNOSUPPORT
