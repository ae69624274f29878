"""Patterns of ``outputs``: which files below ``code_dir`` are meant.

``*``, ``?`` and ``[...]`` stay within a name, ``**`` stands for any folders, and none of them stands for a dot at the
beginning of a name. A pattern that names a folder stands for everything in it. One that begins with ``!`` takes out again
what those before it have taken. Nothing here takes longer than the product of the lengths, whatever a pattern holds.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MAX_PATTERNS = 100
MAX_PATTERN_CHARS = 1000
_WILD = re.compile(r"[*?\[]")
_STARS = re.compile(r"\*{2,}")


@dataclass(frozen=True, slots=True)
class _Name:
    """One name of a pattern."""

    text: str
    compiled: re.Pattern[str] | None
    """None for one without wildcards."""

    def hits(self, name: str) -> bool:
        if self.compiled is None:
            return name == self.text
        if name.startswith(".") and not self.text.startswith("."):
            return False
        return self.compiled.match(name) is not None


_Part = _Name | None
"""None stands for ``**``."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern."""

    text: str
    parts: tuple[_Part, ...]
    takes_out: bool
    only_inside: bool
    """It ends with a slash: it means what is in a folder, never a file."""
    only_itself: bool
    """It ends with ``**``: it means files one by one, so that hidden ones in its folders are left out."""

    def hits(self, names: Sequence[str]) -> bool:
        """Tell whether a file is meant, itself or with a folder that it is in."""
        if not self.only_inside and _fits(self.parts, names):
            return True
        if self.only_itself:
            return False
        return any(_fits(self.parts, names[:size]) for size in range(len(names) - 1, 0, -1))

    def may_hit_below(self, names: Sequence[str]) -> bool:
        """Tell whether anything in this folder can be meant."""
        for position, name in enumerate(names):
            if position == len(self.parts):
                return True
            part = self.parts[position]
            if part is None:
                later = self.parts[position:]
                return not any(each.startswith(".") for each in names[position:]) or any(
                    each is not None and each.text.startswith(".") for each in later
                )
            if not part.hits(name):
                return False
        return True

    @property
    def plain_folder(self) -> tuple[str, ...]:
        """Return the folders that everything that is meant is in, or the path itself if it has no wildcards."""
        plain: list[str] = []
        for part in self.parts:
            if part is None or part.compiled is not None:
                break
            plain.append(part.text)
        return tuple(plain)


@dataclass(slots=True)
class Patterns:
    """The patterns of one job, in their order; remembers which of them have met a file."""

    patterns: tuple[Pattern, ...]
    _met: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Patterns:
        """Return the patterns of checked texts.

        Raises:
            ValueError: As ``parse``.
        """
        return cls(tuple(map(parse, texts)))

    def take(self, name: str) -> bool:
        """Tell whether a file is meant."""
        names = name.split("/")
        taken = False
        for number, pattern in enumerate(self.patterns):
            would_change = taken is pattern.takes_out
            # One that would change nothing is asked only for whether it has met anything.
            if not would_change and (pattern.takes_out or number in self._met):
                continue
            if pattern.hits(names):
                taken = not pattern.takes_out
                self._met.add(number)
        return taken

    def enter(self, folder: str) -> bool:
        """Tell whether anything in a folder can be meant."""
        names = folder.split("/")
        return any(
            pattern.may_hit_below(names) for pattern in self.patterns if not pattern.takes_out
        )

    def unmet(self) -> list[str]:
        """Return the patterns that ask for files and have met none."""
        return [
            pattern.text
            for number, pattern in enumerate(self.patterns)
            if not pattern.takes_out and number not in self._met
        ]

    def roots(self) -> list[str]:
        """Return the fewest paths that hold everything that is meant, sorted; an empty one is ``code_dir`` itself."""
        found = sorted({p.plain_folder for p in self.patterns if not p.takes_out})
        roots: list[tuple[str, ...]] = []
        for path in found:
            if not roots or path[: len(roots[-1])] != roots[-1]:
                roots.append(path)
        return ["/".join(path) for path in roots]


def parse(text: str) -> Pattern:
    """Return the pattern that a text of a job file means.

    Raises:
        ValueError: It means nothing below ``code_dir``; the text says why.
    """
    takes_out = text.startswith("!")
    body = text[1:] if takes_out else text
    if len(text) > MAX_PATTERN_CHARS:
        raise ValueError(f"is longer than {MAX_PATTERN_CHARS} characters")
    if "\0" in body:
        raise ValueError("holds a NUL byte")
    if body.startswith("/"):
        raise ValueError("must be relative: outputs are below code_dir")
    names = [name for name in body.split("/") if name not in ("", ".")]
    if ".." in names:
        raise ValueError("must not hold '..': outputs are below code_dir")
    if not names:
        raise ValueError("names no file; ** stands for all")
    parts: list[_Part] = []
    for name in names:
        if name != "**":
            parts.append(_name(name))
        elif not parts or parts[-1] is not None:
            parts.append(None)
    only_itself = parts[-1] is None
    if only_itself:
        parts.append(_name("*"))
    only_inside = body.endswith("/") and not only_itself
    return Pattern(text, tuple(parts), takes_out, only_inside, only_itself)


def _name(text: str) -> _Name:
    if not _WILD.search(text):
        return _Name(text, None)
    return _Name(text, re.compile(fnmatch.translate(_STARS.sub("*", text))))


_NOTHING = _Name("", re.compile(r"(?!)"))
"""Stands for no name; comes after the last part."""


def _fits(parts: Sequence[_Part], names: Sequence[str]) -> bool:
    """Tell whether all parts stand for all names; goes back to the last ``**`` only, which is enough."""
    part = name = 0
    back: tuple[int, int] | None = None
    while name < len(names):
        current = parts[part] if part < len(parts) else _NOTHING
        if current is None:
            back = (part, name)
            part += 1
        elif current.hits(names[name]):
            part, name = part + 1, name + 1
        elif back is not None and not names[back[1]].startswith("."):
            back = (back[0], back[1] + 1)
            part, name = back[0] + 1, back[1]
        else:
            return False
    return all(each is None for each in parts[part:])
