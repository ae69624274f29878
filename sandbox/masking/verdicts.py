"""Decides whether something that begins like a secret is one: a token, a credential in a URL, or a key block."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple, Protocol

from sandbox.masking import rules
from sandbox.masking.finder import Finder, compile_finder

_URL_MARK, _ESCAPED_URL_MARK = b"://", b":\\/\\/"
_KEY_BLOCK, _URL, _ESCAPED_URL = range(len(rules.RULES), len(rules.RULES) + 3)
"""The numbers of what is no rule."""
_SHORT_BYTES = 4
_USERINFO = re.compile(rb"://[^\s/?#\"'`\\@]*@")


class Swallow(Protocol):
    """The rest of a secret that goes on in the next chunk."""

    def feed(self, data: bytes) -> bytes:
        """Take a chunk; return what stands behind the secret, nothing if it still goes on."""
        ...


class Found(NamedTuple):
    """A secret, as far as it is there."""

    start: int
    end: int
    swallow: Swallow | None = None
    """Set if it may go on behind the end of the buffer."""


class Undecided(NamedTuple):
    """Perhaps a secret."""

    start: int
    """Where its body begins: from here on nothing may leave."""


Verdict = Found | Undecided | None


class _Anchor(NamedTuple):
    """What something begins with."""

    text: bytes
    any_case: bool
    """Then the text is in lower case."""
    offset: int
    """Where its core begins."""
    core_bytes: int
    rules: list[int]

    def stands_at(self, buffer: bytes, start: int) -> bool:
        found = buffer[start : start + len(self.text)]
        return (found.lower() if self.any_case else found) == self.text


def candidates(buffer: bytes, *, automaton: bool) -> list[tuple[int, int]]:
    """Return where something could begin and the number of its rule, in order. Called once per chunk."""
    hits = [
        (start, number)
        for find, anchors_of in _searches(automaton)
        for core, place, _ in find(buffer)
        for anchor in anchors_of[core]
        if (start := place - anchor.offset) >= 0 and anchor.stands_at(buffer, start)
        for number in anchor.rules
    ]
    # URLs are too frequent to look at each of them.
    if b"@" in buffer:
        hits += [(found.start(), _URL) for found in _USERINFO.finditer(buffer)]
    last = buffer.rfind(_URL_MARK, max(0, len(buffer) - rules.MAX_OPEN_BYTES - len(_URL_MARK)))
    if last >= 0 and _authority_end(buffer, last + len(_URL_MARK)) == len(buffer):
        hits.append((last, _URL))
    if len(hits) > 1:
        hits.sort()
    return hits


def judge(rule: int, buffer: bytes, start: int, since: int, *, final: bool) -> Verdict:
    """Decide about one candidate; looks back to ``since`` at most. ``final``: nothing follows the buffer."""
    if rule == _KEY_BLOCK:
        return _judge_key_block(buffer, start, final=final)
    if rule >= _URL:
        mark = _URL_MARK if rule == _URL else _ESCAPED_URL_MARK
        return _judge_url(buffer, start + len(mark), final=final)
    return _judge_token(rules.RULES[rule], buffer, start, since, final=final)


@functools.cache
def _searches(automaton: bool) -> list[tuple[Finder, list[list[_Anchor]]]]:
    """Return what finds cores, and the anchors of each; made once per process, with the first output of a job."""
    by_core: dict[bytes, list[_Anchor]] = {}
    for anchor in _anchors():
        core = anchor.text[anchor.offset : anchor.offset + anchor.core_bytes]
        # A copy of the buffer in lower case would cost more than all searches.
        cases = (({*bytes([c]).upper(), c} if anchor.any_case else {c}) for c in core)
        for letters in product(*cases):
            by_core.setdefault(bytes(letters), []).append(anchor)
    # The longer the shortest of the words, the quicker the search.
    short = {core for core in by_core if len(core) < _SHORT_BYTES}
    searches = []
    for cores in (sorted(short), sorted(by_core.keys() - short)):
        _, find = compile_finder(cores, automaton=automaton)
        searches.append((find, [by_core[core] for core in cores]))
    return searches


def _anchors() -> Iterator[_Anchor]:
    rules_of: dict[tuple[bytes, bool], list[int]] = {
        (rules.KEY_BLOCK_ANCHOR, False): [_KEY_BLOCK],
        (_ESCAPED_URL_MARK, False): [_ESCAPED_URL],
    }
    for number, rule in enumerate(rules.RULES):
        for text in rule.anchors:
            rules_of.setdefault((text, rule.any_case), []).append(number)
    for (text, any_case), numbers in rules_of.items():
        core = next((core for core in rules.CORES if core in text), text)
        yield _Anchor(text, any_case, text.index(core), len(core), numbers)


def _judge_token(
    rule: rules.Rule, buffer: bytes, start: int, since: int, *, final: bool
) -> Verdict:
    prefix = rule.prefix.match(buffer, start)
    if prefix is None:
        return None
    before = buffer[max(since, start - rules.LOOK_BEHIND_BYTES) : start]
    if rule.alone and rules.WORD_END.search(before):
        return None
    if rule.after is not None and not rule.after.search(before):
        return None
    begin, size = prefix.end(), len(buffer)
    end = _end(rule.body, buffer, begin, size)
    if rule.proof.match(buffer, begin):
        return Found(begin, end, _BodySwallow(rule.body) if end == size else None)
    if end == size and size - begin < rules.MAX_OPEN_BYTES and not final:
        return Undecided(begin)
    return None


def _judge_url(buffer: bytes, begin: int, *, final: bool) -> Verdict:
    end = _authority_end(buffer, begin)
    if end == len(buffer) and end - begin < rules.MAX_OPEN_BYTES and not final:
        # A user with a password could leave, but a token that begins in it could not be hidden any more.
        return Undecided(begin)
    at = buffer.rfind(b"@", begin, end)
    if at < 0:
        return None
    password = buffer.find(b":", begin, at) + 1
    if password:
        return Found(password, at) if password < at else None
    return Found(begin, at) if at - begin >= rules.MIN_URL_TOKEN_BYTES else None


def _authority_end(buffer: bytes, begin: int) -> int:
    return _end(rules.URL_AUTHORITY, buffer, begin, begin + rules.MAX_OPEN_BYTES)


def _judge_key_block(buffer: bytes, start: int, *, final: bool) -> Verdict:
    header = rules.KEY_BLOCK.match(buffer, start)
    if header is None:
        return None
    begin, size = header.end(), len(buffer)
    end = _key_block_end(buffer, begin, begin + rules.MAX_OPEN_BYTES)
    long_enough = (size if end is None else end) - begin >= rules.MIN_KEY_BLOCK_BYTES
    if end is not None:
        closed = buffer.startswith(rules.KEY_BLOCK_END, end)
        return Found(begin, end) if closed or long_enough else None
    if long_enough or (final and buffer[begin:].strip()):
        return Found(begin, size, _KeyBlockSwallow(buffer[begin:]))
    return None if final else Undecided(begin)


def _key_block_end(text: bytes, begin: int, limit: int) -> int | None:
    """Return where a block ends: at its last line, at what no key holds, or at the limit; None if it goes on."""
    end = _end(rules.KEY_BLOCK_BODY, text, begin, limit)
    closing = text.find(rules.KEY_BLOCK_END, begin, end)
    if closing >= 0:
        return closing
    return end if end < len(text) or end == limit else None


def _end(body: re.Pattern[bytes], buffer: bytes, begin: int, limit: int) -> int:
    """Return where a run ends that may be empty."""
    found = body.match(buffer, begin, limit)
    return begin if found is None else found.end()


class _BodySwallow:
    """Eats a run of the characters of a token."""

    def __init__(self, body: re.Pattern[bytes]) -> None:
        self._body = body

    def feed(self, data: bytes) -> bytes:
        return data[_end(self._body, data, 0, len(data)) :]


class _KeyBlockSwallow:
    """Eats a key up to its last line, which stays."""

    def __init__(self, text: bytes) -> None:
        self._left = rules.MAX_OPEN_BYTES
        self._kept = text
        self.feed(b"")

    def feed(self, data: bytes) -> bytes:
        text = self._kept + data
        end = _key_block_end(text, 0, self._left)
        if end is not None:
            return text[end:]
        marker = rules.KEY_BLOCK_END
        # What could be the beginning of the last line is not gone yet.
        size = next(n for n in range(len(marker) - 1, -1, -1) if text.endswith(marker[:n]))
        self._kept = text[len(text) - size :]
        self._left -= len(text) - size
        return b""
