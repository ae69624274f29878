"""The page that is written over in place, seen by a terminal."""

from __future__ import annotations

import contextlib
import os

import pyte
import pytest

from daemon.cli.screen import Screen, cells, cut, padded


@pytest.mark.parametrize(
    ("text", "columns", "part"),
    [
        ("abc", 2, "ab"),
        ("abc", 5, "abc"),
        ("日本語", 4, "日本"),
        ("日本語", 5, "日本"),
        ("é日", 1, "é"),
        ("e\u0301x", 1, "e\u0301"),
        ("", 3, ""),
    ],
)
def test_a_text_is_cut_by_cells_not_by_characters(text, columns, part):
    assert cut(text, columns) == part
    assert cells(padded(text, columns)) == columns


class Sized(Screen):
    """A screen whose size a test decides."""

    now = os.terminal_size((10, 4))

    @property
    def size(self) -> os.terminal_size:
        return self.now


class Out:
    """What was written so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().out
        return self._text


@pytest.fixture
def out(capsys) -> Out:
    return Out(capsys)


def shown(out: Out, columns: int = 10, lines: int = 4) -> list[str]:
    terminal = pyte.Screen(columns, lines)
    pyte.Stream(terminal).feed(out.getvalue())
    return [line.rstrip() for line in terminal.display]


def test_only_changed_lines_are_written(out):
    screen = Sized(lambda: None)
    screen.show(["one", "two", "three"])
    assert shown(out) == ["one", "two", "three", ""]
    before = len(out.getvalue())
    screen.show(["one", "2", "three"])
    assert shown(out) == ["one", "2", "three", ""]
    sent = out.getvalue()[before:]
    assert "one" not in sent
    assert "three" not in sent
    before = len(out.getvalue())
    screen.show(["one", "2", "three"])
    assert out.getvalue()[before:] == ""


def test_lines_that_are_gone_are_erased_and_full_lines_stay_whole(out):
    screen = Sized(lambda: None)
    screen.show(["0123456789abc", "x", "y", "z", "too much"])
    assert shown(out) == ["0123456789", "x", "y", "z"]
    screen.show(["0123456789abc"])
    assert shown(out) == ["0123456789", "", "", ""]


def test_another_size_is_drawn_anew(out):
    screen = Sized(lambda: None)
    screen.show(["0123456789", "b"])
    screen.now = os.terminal_size((5, 2))
    screen.show(["0123456789", "b"])
    assert out.getvalue().endswith("\x1b[2J\x1b[1;1H01234\x1b[2;1Hb\x1b[K")


def test_the_terminal_is_given_back(out):
    with contextlib.suppress(KeyError), Sized(lambda: None) as screen:
        screen.show(["x"])
        raise KeyError
    assert out.getvalue().startswith("\x1b[?1049h")
    assert out.getvalue().endswith("\x1b[?25h\x1b[?1049l")
