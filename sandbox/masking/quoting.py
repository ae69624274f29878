"""How programs write a text down: in JSON, in shells, in URLs, in markup, in source code, in base64.

Pure functions from one text to its spellings. A spelling may equal the text; whoever collects them drops
what is there already or too short. Each is here because a tool prints values that way.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Iterator

_HTML_IN_JSON = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
_UNICODE_ESCAPE = re.compile(r"\\u[0-9a-f]{4}")
_QUOTED_BY_BASH = re.compile(r"""([ !"$&'()*,;<>?\[\\\]^`{|}])""")
_ANSI_C = {
    7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 27: "\\E",
    39: "\\'", 92: "\\\\",
}  # fmt: skip
# Said by what they are not: a range to the end of Unicode takes 6 ms to compile.
_ODD_IN_GO = re.compile(r"[^ !#-\[\]-~]")
_ODD_IN_ASCII = re.compile(r"[^ -&(-\[\]-~]")
_ODD_IN_UTF8 = re.compile(r"[\x00-\x1f'\\\x7f]")
_EVERYWHERE_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_URL_SAFE = tuple(
    _EVERYWHERE_SAFE | set(safe) for safe in (b"~", b"~/", b"~!$&'()*+,;=", b"~!*'()")
)
"""RFC 3986 unreserved; paths; paths with sub-delimiters; JavaScript's encodeURIComponent."""
_FORM_SAFE = tuple(_EVERYWHERE_SAFE | set(safe) for safe in (b"~ ", b"* "))
"""Python; JavaScript and Java. All write a space as a plus."""
_PERCENT = 0x25
_BASE64_CUT = (0, 2, 3)
"""Characters at the start that depend on what stands before, by the alignment."""
_WRAP_COLUMNS = (64, 76)
"""Where PEM and base64(1) break lines."""


def json_spellings(text: str) -> Iterator[str]:
    """Yield the inside of a JSON string: ASCII or not, slashes and markup escaped or not, and all twice."""
    for ascii_only in (True, False):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        for form in (once, _go_json(once)):
            yield form
            yield form.replace("/", "\\/")
            yield _UNICODE_ESCAPE.sub(lambda found: "\\u" + found.group()[2:].upper(), form)
            yield json.dumps(form, ensure_ascii=ascii_only)[1:-1]
        yield _go_json(once).replace("'", "\\u0027")
    yield _go_quoted(text)


def shell_spellings(text: str) -> Iterator[str]:
    """Yield a text as shells and their traces quote it, without the outer quotes."""
    yield text.replace("'", "'\\''")  # bash, zsh
    yield text.replace("'", "'\"'\"'")  # dash, Python's shlex
    yield text.replace("'", "''")  # PowerShell, SQL, YAML
    yield text.replace('"', '\\"')
    yield text.replace('"', '""')  # CSV, PowerShell
    yield text.replace("\\", "\\\\")
    yield text.replace("\\", "\\\\").replace('"', '\\"')
    yield text.replace("\\", "\\\\").replace("'", "\\'")
    yield re.sub(r'([$`"\\])', r"\\\1", text)  # declare -p
    quoted = _QUOTED_BY_BASH.sub(r"\\\1", text)
    yield f"\\{quoted}" if quoted[:1] in ("#", "~") else quoted  # printf %q
    yield _ansi_c(text, ascii_only=False)
    yield _ansi_c(text, ascii_only=True)
    # Single quotes need no escape where the quotes around are double ones, and the other way round.
    yield repr(text)[1:-1]
    yield repr(text.encode("utf-8", "surrogatepass"))[2:-1]


def url_spellings(value: bytes) -> Iterator[str]:
    """Yield a value percent-encoded with each usual set of safe characters, in both cases of the digits."""
    found = frozenset(value)
    unsafe = {found - safe for safe in _URL_SAFE}
    unsafe_in_forms = {found - safe for safe in _FORM_SAFE}
    for digits in ("02X", "02x"):
        for odd in unsafe:
            yield _percent_encoded(value, odd, digits).decode("ascii")
        for odd in unsafe_in_forms:
            yield _percent_encoded(value, odd, digits).replace(b" ", b"+").decode("ascii")


def markup_spellings(text: str) -> Iterator[str]:
    """Yield a text as XML and HTML escape it, with every usual spelling of the quotes."""
    if not re.search("[&<>\"']", text):
        return
    for greater in (">", "&gt;"):
        form = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", greater)
        for double, single in itertools.product(
            ('"', "&quot;", "&#34;"), ("'", "&apos;", "&#39;", "&#039;", "&#x27;")
        ):
            yield form.replace('"', double).replace("'", single)


def base64_spellings(value: bytes) -> Iterator[bytes]:
    """Yield what is certain of the base64 of any text that holds the value, and the exact ends.

    The characters at the edges mix bits of the value with bits of its neighbours, so they are cut; but where the
    value ends the text, its last character and the padding are known.
    """
    for alignment, cut in enumerate(_BASE64_CUT):
        padded = base64.b64encode(bytes(alignment) + value)[cut:]
        bare = padded.rstrip(b"=")
        core = bare if bare == padded else bare[:-1]
        for form in (core, bare, padded):
            yield form
            yield form.translate(_TO_URL_ALPHABET)
    whole = base64.b64encode(value)
    for columns in _WRAP_COLUMNS:
        if len(whole) > columns:
            lines = [whole[at : at + columns] for at in range(0, len(whole), columns)]
            yield from lines
            yield lines[-1].rstrip(b"=")[:-1]


_TO_URL_ALPHABET = bytes.maketrans(b"+/", b"-_")


def _percent_encoded(value: bytes, unsafe: frozenset[int], digits: str) -> bytes:
    # The percent sign first: what is written for the others holds it. Much quicker than one pass by an expression,
    # because few different bytes need it.
    for byte in sorted(unsafe, key=lambda byte: byte != _PERCENT):
        value = value.replace(bytes((byte,)), f"%{byte:{digits}}".encode())
    return value


def _go_json(form: str) -> str:
    return form.translate(_HTML_IN_JSON)


def _go_quoted(text: str) -> str:
    """Return the inside of Go's ``%q``, which has more short escapes than JSON, and hexadecimal ones for the rest."""
    return _ODD_IN_GO.sub(_go_escape, text)


def _go_escape(found: re.Match[str]) -> str:
    character = found.group()
    known = '\\"' if character == '"' else _ANSI_C.get(ord(character))
    if known is not None and character != "\x1b":
        return known
    if character.isprintable():
        return character
    return f"\\x{ord(character):02x}" if character < "\x80" else f"\\u{ord(character):04x}"


def _ansi_c(text: str, *, ascii_only: bool) -> str:
    """Return the inside of ``$'…'``; bytes that the locale cannot print are octal."""
    odd = _ODD_IN_ASCII if ascii_only else _ODD_IN_UTF8
    return odd.sub(_octal, text)


def _octal(found: re.Match[str]) -> str:
    known = _ANSI_C.get(ord(found.group()))
    if known is not None:
        return known
    return "".join(f"\\{byte:03o}" for byte in found.group().encode("utf-8", "surrogatepass"))
