"""A list of system calls for the trampoline: what a process does between its birth and its program.

All in one piece of memory that the trampoline maps at one address: a header, data, then the steps. So a step can
name data by an address that is known while the list is made. What many commands share is made once and copied.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum

from sandbox.filesystem.system_calls import Machine

BASE = 0x10000000
"""Where the trampoline maps the list; its code says the same."""
MAGIC = b"launch: "
RECORD_BYTES = 32
"""What the trampoline writes when a step fails: the header with the step's flags and its result in it."""
_STEP = struct.Struct("<8Q")
_HEADER = struct.Struct("<8sQQQ")
_RESULT = struct.Struct("<8xQq8x")
_WORD = 8
_UNSIGNED = (1 << 64) - 1
_MUST, _AFTER_ENOEXEC, _TELL, _BRANCH = 1, 2, 4, 8
_LABEL_SHIFT = 8
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_CLOSE_RANGE_CLOEXEC = 4
_FIRST_FD, _LARGEST_FD = 3, (1 << 32) - 1
"""Of those that are neither stdin nor output."""
_DEFAULT_PATH = "/bin:/usr/bin"
_SHELL = "/bin/sh"


class Step(IntEnum):
    """What a failed step was for."""

    RIGHTS = 1
    """Giving up what no command may have."""
    LIMITS = 2
    DIRECTORY = 3
    """Changing to the working directory."""
    WALLS = 4
    """Landlock rules and the seccomp filter."""
    PROGRAM = 5


class CallList:
    """A list under construction. Copied per command from one that holds what all commands share."""

    def __init__(self, machine: Machine, base: int = BASE) -> None:
        """Begin an empty list.

        Args:
            machine: Whose numbers of calls it has.
            base: Where its data is when it is used; elsewhere than the trampoline maps it only if its first steps map it there.
        """
        self._calls = machine.calls
        self._base = base
        self._data = bytearray(_HEADER.size)
        self._steps = bytearray()
        self._parts: dict[int, int] = {}
        """Where the headers of its parts are, and how far behind the first step each begins."""

    def copy(self) -> CallList:
        """Return a list that begins with the steps of this one."""
        copied = object.__new__(CallList)
        copied._calls = self._calls
        copied._base = self._base
        copied._parts = self._parts.copy()
        copied._data = self._data.copy()
        copied._steps = self._steps.copy()
        return copied

    def data(self, content: bytes) -> int:
        """Put data into the list; return its address."""
        address = self._base + len(self._data)
        self._data += content
        self._data += bytes(-len(content) % _WORD)
        return address

    def must(self, step: Step, name: str, *arguments: int) -> None:
        """Make a call that ends the process, and is told, if it fails."""
        self._add(_MUST | step << _LABEL_SHIFT, name, arguments)

    def may(self, name: str, *arguments: int) -> None:
        """Make a call whatever comes of it."""
        self._add(0, name, arguments)

    def branch(self, to: int, name: str, *arguments: int, must: bool = True) -> None:
        """Make a call after which the process goes on with another list, or part of one, if the result is 0.

        Args:
            to: The address of its header.
            name: The call.
            arguments: Its arguments, five at most.
            must: Whether a failure of the call is the end of the process.
        """
        flags = _MUST | Step.PROGRAM << _LABEL_SHIFT if must else 0
        padding = (0,) * (5 - len(arguments))
        self._add(_BRANCH | flags, name, (*arguments, *padding, to))

    def part(self) -> int:
        """Make room for the header of a part, which begins with a later step; return its address. See ``begin_part``."""
        return self.data(bytes(_HEADER.size))

    def begin_part(self, header: int) -> None:
        """Have a part begin with the next step."""
        self._parts[header] = len(self._steps)

    def begin_in_groups(self, doors: Sequence[int]) -> None:
        """Put the process into control groups, before all other steps: its user may not be one who could.

        Args:
            doors: Descriptors of their ``cgroup.procs``.
        """
        if doors:
            steps, self._steps = self._steps, bytearray()
            itself = self.data(b"0")
            for door in doors:
                self.must(Step.LIMITS, "write", door, itself, 1)
            self._steps += steps

    def change_directory(self, path: str) -> None:
        """Make a path the working directory."""
        self.must(Step.DIRECTORY, "chdir", self._text(path))

    def empty_stdin(self) -> None:
        """Put /dev/null where the list itself came from."""
        self.must(Step.RIGHTS, "close", 0)
        path = self._text("/dev/null")
        self.must(Step.RIGHTS, "openat", _AT_FDCWD & _UNSIGNED, path, os.O_RDWR)

    def replace_stdin(self, fd: int) -> None:
        """Put a descriptor where the list itself came from."""
        self.must(Step.RIGHTS, "dup3", fd, 0, 0)

    def close_all_but(self, kept: Sequence[int]) -> None:
        """Close every descriptor above 2 that is not kept (close_range(2), Linux 5.9)."""
        first = _FIRST_FD
        for fd in sorted(kept):
            if fd > first:
                self.must(Step.RIGHTS, "close_range", first, fd - 1, 0)
            first = fd + 1
        self.must(Step.RIGHTS, "close_range", first, _LARGEST_FD, 0)

    def execute(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Become a program, looked up on the PATH of ``env`` as execvp(3) does; the last step of a list.

        A text without ``#!`` is run by /bin/sh.
        """
        program = argv[0]
        folders = [""] if "/" in program else env.get("PATH", _DEFAULT_PATH).split(":")
        paths = [f"{folder}/{program}" if folder else program for folder in folders]
        # All at once: this is made for every command.
        given = [*argv, *map("=".join, env.items())]
        addresses = self._texts([*given, _SHELL, "", *paths])
        words, variables = addresses[: len(argv)], addresses[len(argv) : len(given)]
        shell, nothing, *programs = addresses[len(given) :]
        scripts = [[shell, path, *words[1:]] for path in programs]
        vector, environment, *shells = self._vectors([words, variables, *scripts])
        for path, script in zip(programs, shells, strict=True):
            self._add(_TELL, "execve", (path, vector, environment))
            self._add(_TELL | _AFTER_ENOEXEC, "execve", (shell, script, environment))
        # Nothing of this name: this call cannot succeed, and tells the first error that says more than that.
        self.must(Step.PROGRAM, "execve", nothing, vector, environment)

    def begin_again(self, fd: int) -> None:
        """Become the program of a descriptor, which is closed by that, with the list that its stdin is; the last step of a list."""
        self.must(Step.RIGHTS, "close_range", _FIRST_FD, _LARGEST_FD, _CLOSE_RANGE_CLOEXEC)
        nothing, name = self._texts(["", "launch"])
        vector, environment = self._vectors([[name], []])
        self.must(Step.PROGRAM, "execveat", fd, nothing, vector, environment, _AT_EMPTY_PATH)

    @property
    def steps(self) -> bytes:
        """Return its steps, which can come first in another list if they have no data."""
        return bytes(self._steps)

    def finish(self, first_steps: bytes = b"") -> bytes:
        """Return the list as the trampoline reads it.

        Args:
            first_steps: The ``steps`` of another list, which come before those of this one.
        """
        first = len(self._data)
        _HEADER.pack_into(self._data, 0, MAGIC, 0, 0, BASE + first)
        for header, steps in self._parts.items():
            place, address = header - self._base, self._base + first + steps
            _HEADER.pack_into(self._data, place, MAGIC, 0, 0, address)
        return b"".join((self._data, first_steps, self._steps))

    def _add(self, flags: int, name: str, arguments: Sequence[int]) -> None:
        padding = (0,) * (6 - len(arguments))
        self._steps += _STEP.pack(flags, self._calls[name], *arguments, *padding)

    def _text(self, text: str) -> int:
        return self.data(os.fsencode(text) + b"\0")

    def _texts(self, texts: Sequence[str]) -> list[int]:
        """Put texts into the list, side by side; return their addresses."""
        joined = "\0".join([*texts, ""])
        content = os.fsencode(joined)
        lengths = map(len, texts)
        if len(content) != len(joined):  # a character may have several bytes
            lengths = map(len, map(os.fsencode, texts))
        address, addresses = self.data(content), []
        for length in lengths:
            addresses.append(address)
            address += length + 1
        return addresses

    def _vectors(self, lists: Sequence[Sequence[int]]) -> list[int]:
        """Put lists of addresses into the list, each with its end, side by side; return their own addresses."""
        words = [word for addresses in lists for word in (*addresses, 0)]
        address, found = self.data(struct.pack(f"<{len(words)}Q", *words)), []
        for addresses in lists:
            found.append(address)
            address += (len(addresses) + 1) * _WORD
        return found


def failed_step(record: bytes) -> tuple[Step, int] | None:
    """Return which step of a list failed and with which error number, from what was written; None if nothing did."""
    if len(record) != RECORD_BYTES or not record.startswith(MAGIC):
        return None
    flags, result = _RESULT.unpack(record)
    try:
        return Step(flags >> _LABEL_SHIFT), -result
    except ValueError:
        return None
