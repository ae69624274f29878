"""One thing that is wrong with a job file, and the error that tells all of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from daemon.errors import InvalidJobFileError

MAX_PROBLEMS = 10
_MAX_FIELD_CHARS = 120
_MAX_TEXT_CHARS = 400


class Mark(NamedTuple):
    """A place in a file; both numbers start at 1."""

    line: int
    column: int
    file: str = ""
    """The file, if it is not the one that is read."""

    @classmethod
    def at(cls, text: str, index: int) -> Mark:
        """Return the place of a character."""
        return cls(text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


START = Mark(1, 1)


class Problem(Exception):  # noqa: N818 - collected as often as it is raised
    """What is wrong, and where. Names fields, never a value, which could be a secret."""

    def __init__(self, mark: Mark, field: str, text: str) -> None:
        super().__init__(text)
        self.mark = mark
        self.field = field
        self.text = text

    def line(self, file_name: str) -> str:
        """Return the problem as one printable line."""
        field = f"{_printable(self.field)[:_MAX_FIELD_CHARS]}: " if self.field else ""
        place = f"{_printable(self.mark.file or file_name)}:{self.mark.line}:{self.mark.column}"
        return f"{place}: {field}{_printable(self.text)[:_MAX_TEXT_CHARS]}"


def invalid_job_file(file_name: str, problems: Iterable[Problem]) -> InvalidJobFileError:
    """Return the error for a file: a line for each problem, in the order of the file."""
    ordered = sorted(problems, key=lambda problem: problem.mark)
    lines = dict.fromkeys(problem.line(file_name) for problem in ordered)
    return InvalidJobFileError("\n".join(list(lines)[:MAX_PROBLEMS]))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a suggestion to append to a message, or nothing."""
    # Comparing is quadratic in the length of the words.
    close = difflib.get_close_matches(word[:_MAX_FIELD_CHARS], sorted(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def _printable(text: str) -> str:
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
