"""Every byte string by which one secret can show in a log: the value itself, its parts, and their spellings.

Called once per secret, when it is registered. What is found here is searched for; nothing else is.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from sandbox.masking.floors import MIN_DERIVED_BYTES, is_telling
from sandbox.masking.quoting import (
    base64_spellings,
    json_spellings,
    markup_spellings,
    shell_spellings,
    url_spellings,
)

MAX_DERIVED_BYTES = 64 << 10
"""A longer value is hidden as it is and by its lines only."""
MAX_SPELLED_LINES = 200
"""Of a value with more lines, or of one that is no text, they are hidden as they are only."""

_LINE_END = re.compile(rb"(?<!\r)\r+\n|\r|\n")
"""Looked for at the first of many CRs only: otherwise from each of them to the last."""
_JOINS = (b"\n", b"\r\n", b"\r\r\n", b" ", b"\\n", b"")
_PLAIN = re.compile(r"[A-Za-z0-9_.-]*")
"""What everybody writes as it is."""
_UNQUOTED = re.compile(r"[A-Za-z0-9_.%+:=@/-]*")
"""What only URLs write in another way, and some JSON the slash."""
_MIN_QUOTED_BYTES = 8
_MIN_USER_TOKEN_BYTES = 20
"""A user without a password in a URL is a token if it is at least this long."""
_HEX = re.compile(rb"(?:0[xX])?[0-9a-fA-F-]{8,}")
_URL = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#\s]*)@")
_PEM = re.compile(rb"-----BEGIN [A-Z0-9 ]+-----(.*?)-----END [A-Z0-9 ]+-----", re.DOTALL)
_PUBLIC_MEMBERS = frozenset({"type", "auth_uri", "token_uri"})
"""Members of a JSON credential that every such file has."""


def given_forms(value: bytes) -> set[bytes]:
    """Return the forms that count as given, not derived: the value, and without space or quotes around it."""
    stripped = value.strip()
    forms = {value, stripped}
    if stripped[:1] == stripped[-1:] == b'"' and len(stripped) - 2 > _MIN_QUOTED_BYTES:
        forms.add(stripped[1:-1])
    return forms - {b""}


def derived_forms(value: bytes) -> set[bytes]:
    """Return the parts of a value and all their spellings; none is shorter than the floor."""
    forms = set(_telling_lines(value))
    if len(value) > MAX_DERIVED_BYTES:
        return forms
    if len(forms) <= MAX_SPELLED_LINES and _text(value) is not None:
        forms = forms.union(*map(_text_spellings, forms))
    for core in _cores(value):
        forms.add(core)
        forms |= _text_spellings(core)
        forms |= set(_binary_spellings(core))
    for joined in _joins(value):
        forms.add(joined)
    for end in (b"\n", b"\r\n"):
        lines = _LINE_END.split(value.strip())
        if len(lines) > 1:
            joined = end.join(lines)
            forms |= _text_spellings(joined)
            forms |= set(base64_spellings(joined))
    return {form for form in forms if len(form) >= MIN_DERIVED_BYTES}


def _cores(value: bytes) -> set[bytes]:
    """Return what is a secret of its own: the value, what is in it if it is JSON or a URL, and both Unicode forms."""
    cores = given_forms(value)
    for whole in list(cores):
        cores |= {leaf for leaf in _json_leaves(whole) if is_telling(leaf)}
    for whole in list(cores):
        cores |= {part for part in _url_passwords(whole) if len(part) >= MIN_DERIVED_BYTES}
    for core in list(cores):
        text = _text(core)
        if text is not None and not text.isascii():
            cores |= {unicodedata.normalize(form, text).encode() for form in ("NFC", "NFD")}
    return cores


def _text_spellings(value: bytes) -> set[bytes]:
    text = _text(value)
    if text is None:
        return {form.encode() for form in url_spellings(value)}
    if _PLAIN.fullmatch(text):
        return set()
    spelled = {*url_spellings(value), text.replace("/", "\\/")}
    if not _UNQUOTED.fullmatch(text):
        for spellings in (json_spellings, shell_spellings, markup_spellings):
            spelled.update(spellings(text))
    return {form.encode("utf-8", "surrogatepass") for form in spelled}


def _binary_spellings(value: bytes) -> Iterator[bytes]:
    yield from base64_spellings(value)
    hexadecimal = value.hex().encode()
    yield hexadecimal
    yield hexadecimal.upper()
    if _HEX.fullmatch(value):
        yield value.lower()
        yield value.upper()


def _telling_lines(value: bytes) -> Iterator[bytes]:
    for whole in (value, *_unescaped(value)):
        lines = _LINE_END.split(whole)
        if len(lines) > 1:
            yield from filter(is_telling, map(bytes.strip, lines))
    if len(value) <= MAX_DERIVED_BYTES:
        for leaf in _json_leaves(value.strip()):
            if b"\n" in leaf:
                yield from filter(is_telling, map(bytes.strip, _LINE_END.split(leaf)))


def _joins(value: bytes) -> set[bytes]:
    """Return a value of several lines with other line ends: terminals, ``echo $V`` and programs change them."""
    joins: set[bytes] = set()
    for whole in (value, *_unescaped(value)):
        lines = _LINE_END.split(whole.strip())
        if len(lines) < 2:  # noqa: PLR2004 - one line has nothing to join
            continue
        trimmed = [line.strip() for line in lines if line.strip()]
        for join in _JOINS:
            joins |= {join.join(lines), join.join(trimmed)}
        joins.add(b" ".join(whole.split()))
        for body in _PEM.findall(whole):
            kept = [line.strip() for line in _LINE_END.split(body) if line.strip()]
            joins |= {join.join(kept) for join in _JOINS}
    return joins


def _unescaped(value: bytes) -> Iterable[bytes]:
    """Return a value with real line ends if it holds them escaped, as files of variables do."""
    return () if b"\n" in value or b"\\n" not in value else (value.replace(b"\\n", b"\n"),)


def _json_leaves(value: bytes) -> Iterator[bytes]:
    if value[:1] not in (b"{", b"["):
        return
    try:
        root = json.loads(value, object_pairs_hook=_Members)
    except (ValueError, RecursionError):
        return
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _Members):
            waiting += [leaf for name, leaf in node if name not in _PUBLIC_MEMBERS]
        elif isinstance(node, list):
            waiting += node
        elif isinstance(node, str) and not node.startswith("https://"):
            yield node.encode("utf-8", "surrogatepass")


class _Members(list[tuple[str, Any]]):
    """The members of a JSON object, repeated names included."""


def _url_passwords(value: bytes) -> Iterator[bytes]:
    found = _URL.match(value)
    if found is None:
        return
    user, colon, password = found.group(1).partition(b":")
    if colon:
        yield password
        yield unquote_to_bytes(password)
    elif len(user) >= _MIN_USER_TOKEN_BYTES:
        yield user


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
