"""The secret prompt on a real terminal: what shows, what arrives, and what is left behind."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pyte
import pytest

LABEL = "Some API key (KEY; kept in memory only; Enter skips): "
DEADLINE_S = 20
COLUMNS, ROWS = 100, 60

ASK = """
import json, sys
from daemon.errors import DaemonError
from daemon.secrets.prompt import ask_secret
try:
    answer = {"value": ask_secret(sys.argv[2])}
except DaemonError as exc:
    answer = {"error": type(exc).__name__}
open(sys.argv[1], "w").write(json.dumps(answer))
"""

# Runs the prompt as a shell does: in a process group of its own, which can be suspended.
SHELL = """
import os, signal, subprocess, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
child = subprocess.Popen(
    [sys.executable, "-c", *sys.argv[2:]],
    process_group=0,
    preexec_fn=lambda: os.tcsetpgrp(0, os.getpgrp()),
)
os.waitpid(child.pid, os.WUNTRACED)
os.tcsetpgrp(0, os.getpgrp())
echo = bool(termios.tcgetattr(0)[3] & termios.ECHO)
open(sys.argv[1], "w").write("echo" if echo else "hidden")
print("suspended", flush=True)
sys.stdin.readline()
os.tcsetpgrp(0, child.pid)
child.send_signal(signal.SIGCONT)
sys.exit(child.wait())
"""


def _open_peer(master: int) -> int:
    """Return the other end of a terminal (TIOCGPTPEER, ioctl_tty(2))."""
    return fcntl.ioctl(master, 0x5441, os.O_RDWR | os.O_NOCTTY)


def _hear_hangups() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Terminal:
    """A process on a terminal of its own, and the screen that a person sees."""

    def __init__(self, argv: list[str], term: str, answer: Path) -> None:
        self.answer_file = answer
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.process = pexpect.spawn(
            argv[0],
            argv[1:],
            env={"TERM": term, "LANG": "C.UTF-8"},
            dimensions=(ROWS, COLUMNS),
            timeout=DEADLINE_S,
            # Under nohup it would inherit that a hangup is ignored.
            preexec_fn=_hear_hangups,
        )
        self.process.delaybeforesend = None
        # Held open, so that the terminal and its modes outlive the process.
        self._slave = _open_peer(self.process.child_fd)
        self.modes_before = self.modes()

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    def unread(self) -> int:
        """Return how many typed bytes nobody has read yet (FIONREAD; ioctl_tty(2))."""
        return int.from_bytes(fcntl.ioctl(self._slave, termios.FIONREAD, bytes(4)), sys.byteorder)

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display).strip()

    def wait(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            self.read()
            assert time.monotonic() < deadline, f"no {what} on the screen:\n{self.text()}"

    def read(self) -> None:
        try:
            data: Any = self.process.read_nonblocking(65536, timeout=0.02)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return
        self.raw += data
        self._stream.feed(data)

    def wait_for(self, text: str) -> None:
        self.wait(lambda: text in self.text(), repr(text))

    def wait_for_prompt(self) -> None:
        self.wait_for(LABEL.rstrip())
        # The label shows a moment before the keys are read.
        self.wait(lambda: not self.modes()[3] & termios.ICANON, "hidden input")

    def type(self, text: str) -> None:
        self.process.send(text)

    def end(self) -> int | None:
        """Wait for the process; return its exit code, negative for a signal."""
        self.wait(lambda: not self.process.isalive(), "end")
        for _ in range(5):
            self.read()
        code, number = self.process.exitstatus, self.process.signalstatus
        return code if number is None else -number

    def answer(self) -> Any:
        assert self.end() == 0, self.text()
        return json.loads(self.answer_file.read_text())

    def close(self) -> None:
        self.process.close(force=True)
        os.close(self._slave)


Start = Callable[..., Terminal]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    opened: list[Terminal] = []

    def run(term: str, *, redirect: str = "", shell: bool = False, handler: str = "") -> Terminal:
        answer = tmp_path / "answer"
        arguments = [f"{handler}\n{ASK}", str(answer), LABEL]
        argv = [sys.executable, "-c", *arguments]
        if shell:
            argv = [sys.executable, "-c", SHELL, str(tmp_path / "state"), *arguments]
        if redirect:
            argv = ["/bin/sh", "-c", f'exec "$@" {redirect}', "sh", *argv]
        terminal = Terminal(argv, term, answer)
        opened.append(terminal)
        terminal.wait_for_prompt()
        return terminal

    yield run
    for terminal in opened:
        terminal.close()


@pytest.fixture
def value() -> str:
    return secrets.token_hex(10)


BOTH = pytest.mark.parametrize("term", ["xterm", "dumb"])


def test_a_star_for_each_character(start, value):
    """A terminal that can draw shows stars and nothing else of the value."""
    terminal = start("xterm")
    terminal.type(value + "Z\x7f")
    terminal.wait_for(LABEL + "*" * len(value))
    terminal.type("\r")

    assert terminal.answer() == {"value": value}
    assert terminal.text() == LABEL + "*" * len(value)
    assert value.encode() not in terminal.raw


@pytest.mark.parametrize("term", ["dumb", "", "unknown"])
def test_a_dumb_terminal_shows_nothing(start, value, term):
    """A terminal that cannot draw shows no trace of what is typed."""
    terminal = start(term)
    terminal.type("rubbish\x15é" + value + "\x1b[Dü\x7f\r")

    assert terminal.answer() == {"value": "é" + value}
    assert terminal.text() == LABEL.rstrip()
    assert b"\x1b" not in terminal.raw


@BOTH
def test_terminal_is_given_back_as_it_was(start, value, term):
    """After the answer echo and line editing are on again."""
    terminal = start(term)

    assert not terminal.modes()[3] & termios.ECHO
    terminal.type(value + "\r")
    terminal.answer()
    assert terminal.modes() == terminal.modes_before


@BOTH
def test_standard_output_stays_clean(start, value, term, tmp_path):
    """With standard output in a file the prompt still shows, and nothing of it is in the file."""
    output = tmp_path / "output"
    terminal = start(term, redirect=f">{output}")
    terminal.type(value + "\r")

    assert terminal.answer() == {"value": value}
    assert output.read_bytes() == b""


@BOTH
def test_standard_error_in_a_file(start, value, term, tmp_path):
    """With standard error in a file too the prompt goes to the controlling terminal."""
    output = tmp_path / "output"
    terminal = start(term, redirect=f">{output} 2>&1")
    terminal.type(value + "\r")

    assert terminal.answer() == {"value": value}
    assert output.read_bytes() == b""


@BOTH
@pytest.mark.parametrize(("keys", "value"), [("\r", ""), ("\n", ""), ("\x04", None), ("  \r", "")])
def test_skipping(start, term, keys, value):
    """Enter gives an empty line, Ctrl-D on an empty line none."""
    terminal = start(term)
    terminal.type(keys)

    assert terminal.answer() == {"value": value}


@BOTH
def test_control_c(start, value, term):
    """Ctrl-C ends the prompt as an interruption and restores the terminal."""
    terminal = start(term)
    terminal.type(value + "\x03")

    assert terminal.answer() == {"error": "Interrupted"}
    assert terminal.modes() == terminal.modes_before
    assert value.encode() not in terminal.raw


@BOTH
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_restores_the_terminal(start, term, number):
    """A killed prompt dies of its signal and leaves the terminal usable."""
    terminal = start(term)
    terminal.type("abc")
    terminal.process.kill(number)

    assert terminal.end() == -number
    assert terminal.modes() == terminal.modes_before
    if term == "xterm":
        assert terminal.raw.rindex(b"\x1b[?2004l") > terminal.raw.rindex(b"\x1b[?2004h")


@BOTH
def test_a_signal_that_the_program_handles(start, value, term):
    """A handler of the program still runs, and the prompt goes on hidden."""
    terminal = start(term, handler="import signal; signal.signal(1, lambda *_: print('noted'))")
    terminal.process.kill(signal.SIGHUP)
    terminal.wait_for("noted")
    terminal.wait(lambda: not terminal.modes()[3] & termios.ECHO, "hidden input")
    terminal.type(value + "\r")

    assert terminal.answer() == {"value": value}
    assert value.encode() not in terminal.raw


@BOTH
@pytest.mark.parametrize("by", ["key", "signal"])
def test_suspended_and_continued(start, value, term, by, tmp_path):
    """While suspended the terminal echoes; afterwards the prompt hides again, and the input starts over."""
    terminal = start(term, shell=True)
    terminal.type(value[:4])
    if term == "xterm":
        terminal.wait_for(LABEL + "****")
    terminal.wait(lambda: not terminal.unread(), "all input read")
    prompt = int(
        Path(f"/proc/{terminal.process.pid}/task/{terminal.process.pid}/children").read_text()
    )
    if by == "key":
        terminal.type("\x1a")
    else:
        os.kill(prompt, signal.SIGTSTP)
    terminal.wait_for("suspended")
    assert (tmp_path / "state").read_text() == "echo"

    terminal.type("go\n")
    terminal.wait(lambda: not terminal.modes()[3] & termios.ECHO, "hidden input")
    terminal.wait(lambda: terminal.text().count(LABEL.rstrip()) == 2, "second prompt")
    terminal.type(value + "\r")
    assert terminal.answer() == {"value": value}
    assert value[4:].encode() not in terminal.raw


@BOTH
@pytest.mark.parametrize("bracketed", [True, False])
def test_long_paste_arrives_whole(start, term, bracketed):
    """5,000 pasted characters arrive, beyond what a terminal line can hold."""
    value = secrets.token_hex(2500)
    terminal = start(term)
    terminal.type(f"\x1b[200~{value}\x1b[201~" if bracketed else value)
    if term == "xterm":
        terminal.wait(lambda: terminal.text().count("*") == 5000, "5,000 stars")
    terminal.type("\r")

    assert terminal.answer() == {"value": value}
    assert value[:32].encode() not in terminal.raw


@BOTH
@pytest.mark.parametrize("paste", ["{}\r{}\r", "{}\n{}", "\x1b[200~{}\r{}\x1b[201~", "\r{}{}"])
def test_several_pasted_lines_are_refused(start, value, term, paste):
    """More than one line is refused as a whole, and the prompt comes back."""
    terminal = start(term)
    terminal.type(paste.format(value, value))
    terminal.wait_for("more than one line was pasted")
    terminal.wait(lambda: terminal.text().count(LABEL.rstrip()) == 2, "second prompt")
    terminal.wait(lambda: not terminal.modes()[3] & termios.ICANON, "hidden input")
    terminal.type(value + "\r")

    assert terminal.answer() == {"value": value}
    assert value.encode() not in terminal.raw


@BOTH
def test_one_pasted_line_with_its_end(start, value, term):
    """The line end that a paste brings along is not part of the value."""
    terminal = start(term)
    terminal.type(f"\x1b[200~{value}\n\x1b[201~" if term == "xterm" else f"{value}\n\n")
    if term == "xterm":
        terminal.wait_for(LABEL + "*" * len(value))
        terminal.type("\r")

    assert terminal.answer() == {"value": value}


@pytest.mark.parametrize("keys", ["\x12", "\x13", "\x1b1"])
def test_editing_keys_do_not_show_what_follows(start, value, keys):
    """Search and repeat counts, which would show the next keys, are off."""
    terminal = start("xterm")
    terminal.type(keys)
    terminal.type(value)
    terminal.wait_for("*" * len(value))
    terminal.type("\r")

    assert terminal.answer()["value"].endswith(value)
    assert value.encode() not in terminal.raw


@BOTH
def test_control_characters_are_refused(start, value, term):
    """A line with control characters is no key; the prompt comes back."""
    terminal = start(term)
    terminal.type("ab\x11\x01c\r" if term == "xterm" else "ab\x01c\r")
    terminal.wait_for("holds control characters")
    terminal.wait(lambda: terminal.text().count(LABEL.rstrip()) == 2, "second prompt")
    terminal.wait(lambda: not terminal.modes()[3] & termios.ICANON, "hidden input")
    terminal.type(value + "\r")

    assert terminal.answer() == {"value": value}


def test_without_a_terminal(tmp_path):
    """Where there is no terminal the error says so."""
    answer = tmp_path / "answer"
    argv = [sys.executable, "-c", ASK, str(answer), LABEL]

    assert subprocess.call(argv, stdin=subprocess.DEVNULL, start_new_session=True) == 0
    assert json.loads(answer.read_text()) == {"error": "SecretNeededError"}
