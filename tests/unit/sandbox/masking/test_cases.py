"""The cases of other tools' maskers, on both engines, in every chunking: tests/cases/mask.json."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from sandbox.masking.masker import Masker

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[3] / "cases" / "mask.json").read_bytes()
)
LAYERS = [pytest.param(case, id=case["id"]) for case in CASES]
ENGINES = pytest.mark.parametrize("automaton", [True, False], ids=["automaton", "library"])
MAX_SINGLE_BYTES = 20_000
"""A longer stream byte by byte only takes longer."""


def expanded(case: dict[str, Any], text: str) -> bytes:
    for name, (unit, times) in case.get("expand", {}).items():
        text = text.replace("{{" + name + "}}", unit * times)
    return text.encode()


def texts(case: dict[str, Any], field: str) -> list[bytes]:
    plain = [expanded(case, text) for text in case.get(field, [])]
    return plain + [base64.b64decode(text) for text in case.get(f"{field}_b64", [])]


def masker_of(case: dict[str, Any], *, automaton: bool, formats: bool) -> Masker:
    masker = Masker(automaton=automaton, formats=formats)
    for number, value in enumerate(texts(case, "secrets")):
        masker.add(f"S{number}", value)
    return masker


def check(case: dict[str, Any], output: bytes) -> None:
    if "expected" in case:
        assert output == expanded(case, case["expected"])
    if "expected_b64" in case:
        assert output == base64.b64decode(case["expected_b64"])
    assert not [text for text in case["must_not_contain"] if expanded(case, text) in output]
    assert not [text for text in case["must_contain"] if expanded(case, text) not in output]


def run(masker: Masker, chunks: Iterable[bytes]) -> bytes:
    stream = masker.stream()
    return b"".join(map(stream.feed, chunks)) + stream.close()


@ENGINES
@pytest.mark.parametrize("formats", [True, False], ids=["formats", "values"])
@pytest.mark.parametrize("case", LAYERS)
def test_case_as_it_was_written(case, formats, automaton):
    """A case gives its output in the chunks, on the streams and with the late values that it names."""
    if case["layer"] == 2 and not formats:
        return
    masker = masker_of(case, automaton=automaton, formats=formats)
    chunks = texts(case, "chunks")
    names = case.get("streams", ["stdout"] * len(chunks))
    streams = {name: masker.stream() for name in names}
    outputs = dict.fromkeys(names, b"")
    for number, (name, chunk) in enumerate(zip(names, chunks, strict=True)):
        for value in case.get("add_before_chunk", {}).get(str(number), []):
            masker.add("LATE", value)
        outputs[name] += streams[name].feed(chunk)
        if "emit_after" in case:
            assert outputs[name] == expanded(case, case["emit_after"][number])
    for name, stream in streams.items():
        outputs[name] += stream.close()

    if "expected_streams" in case:
        assert {name: out.decode() for name, out in outputs.items()} == case["expected_streams"]
    check(case, b"".join(outputs.values()))


@ENGINES
@pytest.mark.parametrize("case", LAYERS)
def test_case_in_other_chunkings(case, automaton):
    """A case gives the same output whole and byte by byte."""
    if "streams" in case or "add_before_chunk" in case:
        return
    data = b"".join(texts(case, "chunks"))
    masker = masker_of(case, automaton=automaton, formats=True)

    check(case, run(masker, [data]))
    if len(data) <= MAX_SINGLE_BYTES:
        check(case, run(masker, [data[i : i + 1] for i in range(len(data))]))


def test_the_cases_are_all_there():
    """The file is whole: no case is lost without a word."""
    assert len(CASES) == len({case["id"] for case in CASES}) >= 100
