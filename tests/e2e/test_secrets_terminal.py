"""`runner secrets` at a real terminal: what is asked, what shows, and what arrives."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.e2e.instance import RUNNER
from tests.e2e.secrets_home import PASSWORD, VARIABLE, SecretsHome
from tests.e2e.terminal import Terminal
from tests.waiting import wait_until

ASKED = "Password of the secret store"
VALUE = "canary-Zq7Zq7Zq7"


@pytest.fixture
def typed(home: SecretsHome) -> SecretsHome:
    """A home whose password only a person knows."""
    home.extra_env[VARIABLE] = ""
    return home


def at(home: SecretsHome, *args: str, term: str = "xterm") -> Terminal:
    return Terminal(home, ["secrets", *args], term)


def answer(terminal: Terminal, question: str, text: str) -> None:
    """Wait for a question that was not answered before, and answer it."""
    terminal.wait_for(question)
    wait_until(terminal.hidden, 20, terminal.pump)
    terminal.child.send(text + "\r")


def never_showed(terminal: Terminal, *texts: str) -> None:
    for text in texts:
        assert not any(text[i : i + 6].encode() in terminal.raw for i in range(len(text) - 5))


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_init_and_set_at_a_terminal(typed: SecretsHome, term: str) -> None:
    """The password twice, then a value; neither shows."""
    terminal = at(typed, "init", "--kdf-cost", "15", term=term)
    answer(terminal, "New password of the secret store", PASSWORD)
    answer(terminal, "The same again", PASSWORD)
    assert terminal.end() == 0, terminal.pump()
    never_showed(terminal, PASSWORD)

    terminal = at(typed, "set", "a", "KEY", term=term)
    answer(terminal, ASKED, PASSWORD)
    answer(terminal, "Value of a:KEY", VALUE)
    assert terminal.end() == 0, terminal.pump()
    assert "a:KEY: stored, 16 bytes" in terminal.pump()
    never_showed(terminal, PASSWORD, VALUE)
    assert typed.value("KEY") == VALUE.encode()


@pytest.mark.case("init-confirm-mismatch")
def test_two_different_passwords(typed: SecretsHome) -> None:
    """Nothing is made."""
    terminal = at(typed, "init")
    answer(terminal, "New password", "aaaa-bbbb")
    answer(terminal, "The same again", "aaaa-bbbc")
    assert terminal.end() == 2
    assert "do not match" in terminal.pump()
    assert not typed.file.parent.exists()


@pytest.mark.case("init-empty-password")
def test_an_empty_password(typed: SecretsHome) -> None:
    """Enter alone is refused."""
    terminal = at(typed, "init")
    answer(terminal, "New password", "")
    assert terminal.end() == 2
    assert "empty password" in terminal.pump()
    assert not typed.file.parent.exists()


@pytest.mark.case("init-force-no-tty-no-yes")
def test_init_by_force_asks_first(home: SecretsHome) -> None:
    """No is the default."""
    home.make(A="1")
    before = home.file.read_bytes()
    terminal = at(home, "init", "--force")
    terminal.wait_for("[y/N]")
    terminal.child.send("\r")
    assert terminal.end() == 2
    assert home.file.read_bytes() == before


@pytest.mark.case("pw-three-tries")
def test_three_wrong_passwords(typed: SecretsHome) -> None:
    """Three questions, then the exit code of a wrong one; a right third one opens."""
    typed.make(KEY=VALUE)
    terminal = at(typed, "list", "a")
    for number in range(3):
        wait_until(lambda n=number: terminal.pump().count(ASKED) == n + 1, 30, terminal.pump)  # type: ignore[misc]
        answer(terminal, ASKED, f"wrong-{number}")
    assert terminal.end() == 4
    assert terminal.raw.count(b"try again") == 2

    terminal = at(typed, "list", "a")
    answer(terminal, ASKED, "wrong")
    terminal.wait_for("try again")
    answer(terminal, ASKED, PASSWORD)
    assert terminal.end() == 0
    assert "KEY" in terminal.pump()


@pytest.mark.case("pw-three-tries")
def test_a_wrong_password_of_the_environment_is_not_asked_for(home: SecretsHome) -> None:
    """It was given; the person is not asked for another one."""
    home.make()
    home.extra_env[VARIABLE] = "wrong-password"
    terminal = at(home, "list-paths")
    assert terminal.end() == 4
    assert ASKED not in terminal.pump()


@pytest.mark.case("pw-prompt-while-stdout-piped")
def test_the_prompt_is_not_in_the_output(typed: SecretsHome, tmp_path: Path) -> None:
    """Standard output holds the value and nothing else."""
    typed.make(KEY=VALUE)
    out = tmp_path / "out"
    shell = Terminal(
        typed, [], "xterm", program=("/bin/sh", "-c", f"{RUNNER} secrets get a KEY > {out}")
    )
    answer(shell, ASKED, PASSWORD)
    assert shell.end() == 0, shell.pump()
    assert out.read_bytes() == VALUE.encode()
    never_showed(shell, VALUE, PASSWORD)


def test_get_to_a_terminal(home: SecretsHome) -> None:
    """Only when that is meant; what is in the value does not drive the terminal."""
    home.make(KEY="line\x1b[31m\nsecond", BYTES=b"\xff")
    terminal = at(home, "get", "a", "KEY")
    assert terminal.end() == 2
    assert "--show" in terminal.pump()
    never_showed(terminal, "second")

    terminal = at(home, "get", "a", "KEY", "--show")
    assert terminal.end() == 0
    assert r"line\x1b[31m" in terminal.pump()
    assert "second" in terminal.pump()
    terminal = at(home, "get", "a", "BYTES", "--show")
    assert terminal.end() == 2
    terminal = at(home, "export", "--plaintext")
    assert terminal.end() == 2
    never_showed(terminal, "second")


@pytest.mark.case("set-paste-5000-chars", "prompt-bracketed-paste")
def test_a_long_paste_arrives_whole(home: SecretsHome) -> None:
    """Without the codes that a terminal puts around it."""
    home.make()
    token = "".join(f"{number:05d}" for number in range(1000))
    terminal = at(home, "set", "a", "KEY")
    terminal.wait_for("Value of a:KEY")
    wait_until(terminal.hidden, 20)
    terminal.child.send(f"\x1b[200~{token}\x1b[201~\r")
    assert terminal.end() == 0, terminal.pump()
    assert home.value("KEY") == token.encode()


@pytest.mark.parametrize(
    "args",
    [
        ("set", "a", "KEY", "--stdin"),
        ("set", "a", "KEY", "--file", "-"),
        ("list-paths", "--password-fd", "0"),
        ("list-paths", "--password-file", "/dev/stdin"),
    ],
)
def test_nothing_is_read_from_a_terminal_that_shows_it(
    home: SecretsHome, args: tuple[str, ...]
) -> None:
    """Where a pipe was meant, what is typed would be seen."""
    home.make()
    terminal = at(home, *args)
    assert terminal.end() == 2
    assert "would show" in terminal.pump()


@pytest.mark.case("prompt-whitespace")
def test_outer_white_space_is_kept_and_said(home: SecretsHome) -> None:
    """It may belong to the value."""
    home.make()
    terminal = at(home, "set", "a", "KEY")
    answer(terminal, "Value of a:KEY", "  sk-key-1234 ")
    assert terminal.end() == 0
    assert "white space" in terminal.pump()
    assert home.value("KEY") == b"  sk-key-1234 "


def test_enter_stores_no_empty_value(home: SecretsHome) -> None:
    """It is refused, as from a pipe; the end of input is no value at all."""
    home.make()
    terminal = at(home, "set", "a", "KEY")
    answer(terminal, "Value of a:KEY", "")
    assert terminal.end() == 2
    assert "empty value" in terminal.pump()
    terminal = at(home, "set", "a", "KEY")
    terminal.wait_for("Value of a:KEY")
    wait_until(terminal.hidden, 20)
    terminal.child.send("\x04")
    assert terminal.end() == 8


def test_enter_is_no_password(typed: SecretsHome) -> None:
    """It counts as a try; the end of input ends the questions."""
    typed.make(KEY=VALUE)
    terminal = at(typed, "list", "a")
    answer(terminal, ASKED, "")
    wait_until(lambda: terminal.pump().count(ASKED) == 2 and terminal.hidden(), 20, terminal.pump)
    terminal.child.send(PASSWORD + "\r")
    assert terminal.end() == 0, terminal.pump()
    terminal = at(typed, "list", "a")
    terminal.wait_for(ASKED)
    wait_until(terminal.hidden, 20)
    terminal.child.send("\x04")
    assert terminal.end() == 8


@pytest.mark.case("passwd-change", "passwd-wrong-old")
def test_passwd(typed: SecretsHome) -> None:
    """Old, new, again; the values stay, and old copies are spoken of."""
    typed.make(KEY=VALUE)
    terminal = at(typed, "passwd", "--kdf-cost", "15")
    answer(terminal, ASKED, PASSWORD)
    answer(terminal, "New password", "another-horse-5")
    answer(terminal, "The same again", "another-horse-5")
    assert terminal.end() == 0, terminal.pump()
    assert "still open with the old password" in terminal.pump()
    assert (
        typed.secrets("get", "a", "KEY", env={VARIABLE: "another-horse-5"}).stdout == VALUE.encode()
    )
    before = typed.file.read_bytes()
    typed.error("passwd", code=4, env={VARIABLE: PASSWORD})
    assert typed.file.read_bytes() == before


@pytest.mark.case("prompt-sigterm")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_at_the_prompt_gives_the_terminal_back(typed: SecretsHome, number: int) -> None:
    """With its echo; nothing is stored."""
    typed.make()
    terminal = at(typed, "set", "a", "KEY")
    terminal.wait_for(ASKED)
    wait_until(terminal.hidden, 20)
    if number == signal.SIGINT:
        terminal.child.send("\x03")
    else:
        terminal.child.kill(number)
    wait_until(lambda: not terminal.hidden(), 20, terminal.pump)
    assert terminal.end() in (130, -number)
    assert typed.open().names() == []


@pytest.mark.case("prompt-sigtstp")
def test_the_prompt_is_suspended(typed: SecretsHome) -> None:
    """Echo while it is stopped, none after it goes on; what was typed before is forgotten."""
    typed.make(KEY=VALUE)
    shell = Terminal(
        typed, [], "xterm", program=(sys.executable, "-c", SHELL, RUNNER, "secrets", "list", "a")
    )
    shell.wait_for(ASKED)
    wait_until(shell.hidden, 20)
    shell.child.send("\x1a")
    shell.wait_for("suspended with echo")
    shell.child.send("\n")
    wait_until(shell.hidden, 20, shell.pump)
    shell.child.send(PASSWORD + "\r")
    assert shell.end() == 0, shell.pump()
    assert "KEY" in shell.pump()


SHELL = """
import os, signal, subprocess, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
child = subprocess.Popen(sys.argv[1:], process_group=0, preexec_fn=lambda: os.tcsetpgrp(0, os.getpgrp()))
os.waitpid(child.pid, os.WUNTRACED)
os.tcsetpgrp(0, os.getpgrp())
print("suspended with", "echo" if termios.tcgetattr(0)[3] & termios.ECHO else "none", flush=True)
sys.stdin.readline()
os.tcsetpgrp(0, child.pid)
child.send_signal(signal.SIGCONT)
sys.exit(child.wait())
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="/proc is missing")
def test_the_command_keeps_others_out_of_its_memory(typed: SecretsHome) -> None:
    """Not dumpable while it asks: its files in /proc belong to root, also for its own user."""
    typed.make()
    terminal = at(typed, "list-paths")
    terminal.wait_for(ASKED)
    status = Path(f"/proc/{terminal.child.pid}/limits").read_text()
    assert any(
        line.startswith("Max core file size") and " 0 " in line for line in status.splitlines()
    )
    assert os.stat(f"/proc/{terminal.child.pid}/environ").st_uid == 0
    terminal.child.send("\x03")
    assert terminal.end() == 130
