"""What a git configuration names for git to run or to read: pure, and of git's language only as much as that needs (git-config(1)).

Called for the configuration of each checkout that is there before a command. The text may be hostile: it was copied from
somewhere. What is not understood names nothing.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_SECTION = re.compile(r'\s*\[\s*(?P<name>[A-Za-z0-9.-]+)\s*(?:"(?:[^"\\\n]|\\.)*"\s*)?\]')
_VARIABLE = re.compile(r"\s*(?P<name>[A-Za-z][A-Za-z0-9-]*)\s*=\s*(?P<value>.*)")
_PIECE = re.compile(r'"(?P<quoted>(?:[^"\\]|\\.)*)"?|\\(?P<escaped>.)|(?P<end>[#;].*)|(?P<plain>.)')
_ESCAPED = re.compile(r"\\(.)")
_INCLUDES = frozenset({"include", "includeif"})


class Named(NamedTuple):
    """What a configuration names, as it is written there."""

    hooks: tuple[str, ...]
    """``core.hooksPath``, each of several."""
    includes: tuple[str, ...]
    """``include.path`` and ``includeIf.….path``, whatever the condition."""
    worktree: str
    """``core.worktree``, the last of several; empty for none."""


def named_in(text: str) -> Named:
    """Return what a configuration names."""
    hooks, includes, worktree, section = [], [], "", ""
    for line in text.replace("\\\n", "").splitlines():
        rest = line
        if (header := _SECTION.match(rest)) is not None:
            section, rest = header["name"].lower(), rest[header.end() :]
        variable = _VARIABLE.fullmatch(rest)
        if variable is None:
            continue
        name, value = variable["name"].lower(), _unquoted(variable["value"])
        if (section, name) == ("core", "hookspath"):
            hooks.append(value)
        elif (section, name) == ("core", "worktree"):
            worktree = value
        elif section in _INCLUDES and name == "path":
            includes.append(value)
    return Named(tuple(hooks), tuple(includes), worktree)


def _unquoted(text: str) -> str:
    """Return a value without its quotes and the comment behind it."""
    found = ""
    for piece in _PIECE.finditer(text.strip()):
        if piece["end"] is not None:
            return found.rstrip()
        if piece["quoted"] is not None:
            found += _ESCAPED.sub(r"\1", piece["quoted"])
        else:
            found += piece["escaped"] or piece["plain"] or ""
    return found
