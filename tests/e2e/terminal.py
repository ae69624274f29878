"""A terminal with a program in it, as a person sees it."""

from __future__ import annotations

import termios
from typing import Any

import pexpect
import pyte

from tests.e2e.instance import RUNNER, Instance
from tests.waiting import wait_until


class Terminal:
    """A terminal of 140 by 30 with a program in it."""

    def __init__(
        self, instance: Instance, args: list[str], term: str, program: tuple[str, ...] = (RUNNER,)
    ) -> None:
        self.screen = pyte.Screen(140, 30)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        env = {**instance.env, "TERM": term}
        self.child: Any = pexpect.spawn(
            program[0], [*program[1:], *args], env=env, dimensions=(30, 140), timeout=30
        )

    def resize(self, lines: int, columns: int) -> None:
        """Change the size, as a person does with a window."""
        self.screen.resize(lines, columns)
        self.child.setwinsize(lines, columns)

    def pump(self) -> str:
        """Read what is there; return the screen."""
        try:
            data = self.child.read_nonblocking(65536, timeout=0.05)
            self.raw += data
            self.stream.feed(data)
        except (pexpect.TIMEOUT, pexpect.EOF, ValueError):
            pass  # nothing to read now, or never again: what the screen shows stays
        return "\n".join(self.screen.display)

    def hidden(self) -> bool:
        """Tell whether what is typed does not show."""
        return not termios.tcgetattr(self.child.child_fd)[3] & termios.ECHO

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.pump(), 30, lambda: f"{text!r} on:\n{self.pump()}")

    def end(self) -> int:
        """Wait for the end of the program; return its exit code, or the negative number of its signal."""
        wait_until(lambda: not self.child.isalive() or (self.pump() and False), 60, self.pump)
        self.pump()
        self.child.close()
        signal = self.child.signalstatus
        return int(self.child.exitstatus) if signal is None else -int(signal)
