r"""Reads ``.env`` files: ``NAME=value`` lines, as shells and the dotenv tools write them.

Values in single quotes are taken as they stand, in double quotes with ``\n \r \t \\ \" \$``; both may go over several lines. Nothing is
expanded: a value with ``$`` in it stays what it is.
"""

from __future__ import annotations

import re

_NAME = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]{0,127})[ \t]*=")
_SKIPPED = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_GAP = re.compile(r"[ \t]*")
_COMMENT = re.compile(r"[ \t]#.*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$"}


def parse_dotenv(data: bytes) -> dict[str, str]:
    """Return the values by name; of a name that stands twice the last one, as in a shell.

    Raises:
        ValueError: A line cannot be read; names its number, never its text.
    """
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise ValueError("it is not valid UTF-8") from None
    values: dict[str, str] = {}
    position = 0
    while position < len(text):
        skipped = _SKIPPED.match(text, position)
        if skipped:
            position = skipped.end()
            continue
        name = _NAME.match(text, position)
        if name is None:
            raise _malformed(text, position, "expected NAME=value")
        values[name[1]], position = _value(text, name.end())
    return values


def _value(text: str, start: int) -> tuple[str, int]:
    """Return the value that begins at a position, and where the next line begins."""
    gap = _GAP.match(text, start)
    opening = gap.end() if gap else start
    quote = text[opening : opening + 1]
    if quote and quote in "'\"":
        match = (_SINGLE if quote == "'" else _DOUBLE).match(text, opening)
        if match is None:
            raise _malformed(text, opening, f"the quote {quote} is not closed")
        rest = _SKIPPED.match(text, match.end())
        if rest is None:
            raise _malformed(text, match.end(), "there is more after the closing quote")
        value = match[1] if quote == "'" else _ESCAPE.sub(_unescape, match[1])
        return value, rest.end()
    end = text.find("\n", start)
    line = text[start:] if end < 0 else text[start:end]
    return _COMMENT.sub("", line).strip(), start + len(line) + 1


def _unescape(match: re.Match[str]) -> str:
    return _ESCAPED.get(match[1], match[0])


def _malformed(text: str, position: int, problem: str) -> ValueError:
    return ValueError(f"line {text.count(chr(10), 0, position) + 1}: {problem}")
