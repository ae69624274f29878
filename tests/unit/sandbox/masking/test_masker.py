"""Masking: whole values, split values, overlaps, the end of a stream, and our own logs."""

from __future__ import annotations

import itertools
import re
import resource
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.masking.engine import CUT_TAIL_MIN_BYTES, MaskEngine
from sandbox.masking.engine_stack import EngineStack
from sandbox.masking.masker import MASK, WITHHELD, Masker, MaskingStream
from sandbox.masking.stream import WITHHELD as LOG_WITHHELD
from sandbox.masking.stream import FailClosed

ENGINES = pytest.mark.parametrize("automaton", [True, False], ids=["automaton", "library"])

KEY = "Zq7-Kiln!42x"
FLOWER = "Marigold-77"
EDGE = "-----{} OPENSSH PRIVATE KEY-----"
PEM_LINES = ["bG9yZW1pcHN1bWRvbG9yc2l0YW1ldA", "c29tZW1vcmVsaW5lc29mdGhla2V5"]
PEM = "\n".join([EDGE.format("BEGIN"), *PEM_LINES, "QQ==", EDGE.format("END"), ""])

# name, values, chunks, expected output; most are in tests/cases/mask.json
CASES: list[tuple[str, list[str | bytes], list[str | bytes], str | bytes]] = [
    ("mid-rune", [KEY], ["naï".encode()[:3], "ï".encode()[1:] + KEY.encode()], "naï***"),
    ("progress", [KEY], ["\r 10%", f"\r 20% {KEY}", "\r 30%"], "\r 10%\r 20% ***\r 30%"),
    ("large", ["_ab" * 3000], ["x" + "_ab" * 1500, "_ab" * 1500 + "y"], "x***y"),
    ("cut off", [FLOWER], ["tail Marigold"], "tail ***"),
    ("trivial", ["true", "12345", "aaaaaaa"], ['{"ok": true}'], '{"ok": true}'),
    ("public header", [PEM], [EDGE.format("BEGIN") + "\n"], EDGE.format("BEGIN") + "\n"),
]


def as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def masker_of(values: Iterable[str | bytes], *, automaton: bool) -> Masker:
    masker = Masker(automaton=automaton)
    for number, value in enumerate(values):
        masker.add(f"S{number}", value)
    return masker


def run(masker: Masker, chunks: Iterable[bytes]) -> bytes:
    stream = masker.stream()
    return b"".join(map(stream.feed, chunks)) + stream.close()


@ENGINES
@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_case_in_every_chunking(case, automaton):
    """A case gives the same output as written, in one piece and byte by byte."""
    _, values, chunks, expected = case
    masker = masker_of(values, automaton=automaton)
    data = b"".join(map(as_bytes, chunks))

    assert run(masker, map(as_bytes, chunks)) == as_bytes(expected)
    assert run(masker, [data]) == as_bytes(expected)
    assert masker.mask_bytes(data) == as_bytes(expected)
    if len(data) < 2_000:
        assert run(masker, [data[i : i + 1] for i in range(len(data))]) == as_bytes(expected)


def oracle(patterns: Iterable[bytes], data: bytes) -> bytes:
    """Mark every covered byte, one position at a time, and collapse each run into a mask."""
    covered = bytearray(len(data))
    for pattern in patterns:
        for start in range(len(data) - len(pattern) + 1):
            if data[start : start + len(pattern)] == pattern:
                covered[start : start + len(pattern)] = b"\1" * len(pattern)
        for start in range(len(data)):
            tail = data[start:]
            half = CUT_TAIL_MIN_BYTES <= len(tail) < len(pattern) <= len(tail) * 2
            if half and pattern.startswith(tail):
                covered[start:] = b"\1" * len(tail)
    marked = bytes(0xFF if hidden else byte for byte, hidden in zip(data, covered, strict=True))
    return re.sub(rb"\xff+", MASK, marked)


class EngineMasker(Masker):
    """Patterns as given: the floors would keep the short ones out."""

    def __init__(self, patterns: Iterable[bytes], *, automaton: bool) -> None:
        super().__init__(formats=False)
        self._given = EngineStack().with_patterns(frozenset(patterns), automaton=automaton)

    def snapshot(self) -> EngineStack | None:
        return self._given


@st.composite
def streams(draw):
    alphabet = draw(st.sampled_from(["ab", "abc"]))
    text = st.text(alphabet, min_size=1, max_size=24).map(str.encode)
    patterns = draw(st.lists(text, min_size=1, max_size=6, unique=True))
    pieces = st.one_of(
        text, st.sampled_from(patterns), st.sampled_from(patterns).map(lambda p: p[:-1])
    )
    data = b"".join(draw(st.lists(pieces, max_size=12)))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=10)))
    edges = [0, *cuts, len(data)]
    return patterns, [data[a:b] for a, b in itertools.pairwise(edges)]


@ENGINES
@given(case=streams())
@settings(max_examples=300, deadline=None)
def test_any_stream_equals_the_oracle(automaton, case):
    """Whatever the patterns and the cuts, exactly the covered bytes are hidden."""
    patterns, chunks = case
    masker = EngineMasker(patterns, automaton=automaton)

    assert run(masker, chunks) == oracle(patterns, b"".join(chunks))


@ENGINES
def test_hits_in_long_text_equal_the_oracle(automaton):
    """Sparse hits in long text, where the first pass narrows the search, are all found."""
    values = [secrets.token_hex(4).encode() for _ in range(4)]
    values += [values[0][2:] + values[1][:5], values[2] + b"--" + values[3]]
    text = b"lorem ipsum dolor sit amet " * 40
    data = text + values[0] + values[1] + text + values[2] + b"--" + values[3] + text + values[4]
    masker = EngineMasker(values, automaton=automaton)

    assert masker.mask_bytes(data) == oracle(values, data)


@ENGINES
def test_many_values(automaton):
    """Past the limit of the first pass the output is the same."""
    values = [secrets.token_hex(8).encode() for _ in range(150)]
    masker = masker_of(values, automaton=automaton)

    assert masker.mask_bytes(b" ".join(values) + b"\n") == b" ".join([MASK] * 150) + b"\n"


@ENGINES
def test_only_a_live_prefix_is_held_back(automaton):
    """A prompt is out at once; a possible start of a value waits for what follows."""
    stream = masker_of([FLOWER], automaton=automaton).stream()

    assert stream.feed(b"Password: ") == b"Password: "
    assert stream.feed(b"x Mar") == b"x "
    assert stream.feed(b"k") == b"Mark"


@ENGINES
def test_value_added_later_hides_held_bytes(automaton):
    """A value that is registered in mid-stream is looked for in the held bytes too."""
    masker = masker_of([FLOWER], automaton=automaton)
    stream = masker.stream()
    first = stream.feed(b"x Marigold-7")
    masker.add("LATE", "Marigold-99")

    assert first + stream.feed(b"7 Marigold-99") + stream.close() == b"x *** ***"


@ENGINES
def test_streams_are_independent(automaton):
    """A value split over two streams is not pieced together, and nothing is lost."""
    masker = masker_of([FLOWER], automaton=automaton)
    out, err = masker.stream(), masker.stream()

    assert out.feed(b"Mari") + err.feed(b"gold-77") + out.close() + err.close() == b"gold-77Mari"


@ENGINES
def test_memory_stays_bounded_in_an_endless_match(automaton):
    """A stream that is one endless match never piles up."""
    stream = masker_of(["-=-="], automaton=automaton).stream()
    output = b"".join(stream.feed(b"-=" * 5000) for _ in range(50))

    assert output == MASK
    assert len(stream._values._carry) < 4


def test_without_values_the_chunk_itself_comes_back():
    """No copy is made when there is nothing to hide."""
    chunk = secrets.token_bytes(4096)

    assert Masker(formats=False).stream().feed(chunk) is chunk
    assert Masker().stream().feed(b"plain text" * 500).count(b"plain text") == 500


def test_without_hits_the_chunk_itself_comes_back():
    """No copy is made for a chunk without a hit."""
    chunk = b"plain text\n" * 100
    stream = masker_of([KEY], automaton=True).stream()

    assert stream.feed(chunk) is chunk
    assert stream.feed(chunk) is chunk


def test_close_twice_and_feed_after_close():
    """A stream ends once; using it afterwards is a bug of the caller."""
    stream = masker_of([FLOWER], automaton=True).stream()
    stream.feed(b"Mari")

    assert (stream.close(), stream.close()) == (b"Mari", b"")
    with pytest.raises(RuntimeError):
        stream.feed(b"more")


@pytest.mark.parametrize(
    "value", ["", " ", "abc", "  abc \n", "TRUE", "localhost", "12345", "aaaaaaa", b"\0\0\0\0"]
)
def test_short_and_common_values_are_refused(value):
    """What would shred the log is not registered, and the caller learns it."""
    masker = Masker()

    assert masker.add("NAME", value) is False
    assert masker.mask_text("true abc 12345 aaaaaaa") == "true abc 12345 aaaaaaa"


def test_values_are_not_shown():
    """No value shows in a repr."""
    masker = masker_of([KEY, FLOWER], automaton=True)

    assert KEY not in repr(masker) + repr(masker.stream()) + repr(masker.snapshot())


@pytest.mark.parametrize("text", ["\ud800 {}", "{}\udcff\ud800", "é {} \0"])
def test_mask_text_survives_any_text(text):
    """Undecodable and surrogate characters come through a masking unharmed."""
    masked = masker_of([KEY], automaton=True).mask_text(text.format(KEY))

    assert masked == text.format("***")


def test_mask_text_after_a_cut_inside_a_character():
    """A binary value that splits a character still leaves readable text."""
    masker = masker_of([b"\xa4bcdef"], automaton=True)

    assert masker.mask_text("x äbcdef y") == "x \ufffd*** y"


def test_mask_text_withholds_what_it_cannot_mask(monkeypatch):
    """A failure inside never lets the raw text pass."""
    masker = masker_of([KEY], automaton=True)
    monkeypatch.setattr(masker, "snapshot", lambda: 1 / 0)

    assert masker.mask_text(KEY) == WITHHELD


def test_escaped_bytes_of_the_environment_survive():
    """Bytes that the interpreter carries as escapes come back as such."""
    masked = masker_of([KEY], automaton=True).mask_text(f"\udcff {KEY}")

    assert masked == "\udcff ***"


def test_undecodable_environment_value_is_hidden_as_bytes():
    """A value from the environment with foreign bytes is hidden where it is printed."""
    masker = masker_of(["caf\udce9-secret"], automaton=True)

    assert masker.mask_bytes(b"x caf\xe9-secret") == b"x ***"


def test_adding_while_others_mask():
    """Values may be added by one thread while others use their streams."""
    masker = Masker()
    values = [secrets.token_hex(16) for _ in range(60)]
    added: list[bytes] = []
    leaks: list[bytes] = []
    stop = threading.Event()

    def read(stream: MaskingStream) -> None:
        while not stop.is_set():
            data = (added[-1] if added else b"") + b"\n"
            if data != b"\n" and stream.feed(data) != b"***\n":
                leaks.append(data)

    threads = [threading.Thread(target=read, args=(masker.stream(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number, value in enumerate(values):
        masker.add(f"S{number}", value)
        added.append(value.encode())
    stop.set()
    for thread in threads:
        thread.join()

    assert leaks == []


def test_import_is_cheap():
    """Importing the masker does not load the automaton."""
    code = "import sys, sandbox.masking; sys.exit('ahocorasick_rs' in sys.modules)"

    assert subprocess.call([sys.executable, "-c", code]) == 0


def test_both_engines_exist():
    """The tests above really ran two engines."""
    names = {MaskEngine([b"abcd"], automaton=flag).name for flag in (True, False)}

    assert names == {"ahocorasick_rs", "standard library"}


def test_a_failure_withholds_the_rest(caplog, monkeypatch):
    """After a failure a stream says so once and shows nothing more, not even at its end."""
    masker = masker_of([KEY], automaton=True)
    stream = FailClosed(masker.stream())

    assert stream.feed(b"shown ") == b"shown "
    monkeypatch.setattr(MaskEngine, "scan", lambda *_args, **_options: 1 / 0)
    assert stream.feed(KEY.encode()) == LOG_WITHHELD
    monkeypatch.undo()
    assert stream.feed(b"more") + stream.close() == b""
    assert KEY not in caplog.text
    assert "masking_failed" in {record.action for record in caplog.records}


def test_endless_repetition_costs_no_memory():
    """A stream that is nothing but the period of a secret is one mask, and memory does not grow."""
    stream = masker_of(["ab" * 40], automaton=True).stream()
    piece = b"ab" * (64 << 10)
    stream.feed(piece)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shown = sum(len(stream.feed(piece)) for _ in range(1024))

    assert shown == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


SECRETS = ["a-b://c", "ghp_abcdefgh", "line-one\nline-two", "aaaaaaaaa"]


@given(
    pieces=st.lists(
        st.sampled_from(
            [
                *SECRETS,
                "a-b:",
                "//",
                "ghp_",
                "abcdefgh" * 3,
                "@",
                "://x:y",
                " ",
                "\n",
                "aaaa",
                "line-",
            ]
        ),
        max_size=12,
    ),
    data=st.data(),
)
@settings(max_examples=300, deadline=None)
def test_both_layers_in_any_chunking(pieces, data):
    """Values and formats together give the same output however a stream is cut, on both engines."""
    text = "".join(pieces).encode()
    edges = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    cuts = [text[a:b] for a, b in itertools.pairwise([0, *edges, len(text)])]
    whole = masker_of(SECRETS, automaton=True).mask_bytes(text)

    assert run(masker_of(SECRETS, automaton=True), cuts) == whole
    assert (
        run(masker_of(SECRETS, automaton=False), [text[i : i + 1] for i in range(len(text))])
        == whole
    )
    assert not [value for value in SECRETS if value.encode() in whole]


def test_values_without_room_for_their_forms_cost_little():
    """Past the bound of all patterns values are hidden as they are, and their forms are not made in vain."""
    masker = Masker()
    began = time.process_time()
    values = []
    for number in range(100):
        lines = "\n".join(f"{number}-{line:03d}-'x\"&<" + "'&<" * 20 for line in range(190))
        values.append(lines)
        assert masker.add("S", lines)

    assert time.process_time() - began < 15  # each by itself takes half a second
    assert masker.mask_text(values[-1]) == "***"
    assert masker.add("S", "later-value-1")
    assert masker.mask_text(b"later-value-1".hex()) == "***"
