"""What looks like a secret: the rules, and that no chunking changes what they do."""

from __future__ import annotations

import itertools
import random
import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.masking.formats import FormatStream
from sandbox.masking.rules import CORES, MAX_ANCHOR_BYTES, MAX_OPEN_BYTES, RULES

ENGINES = pytest.mark.parametrize("automaton", [True, False], ids=["automaton", "library"])
BODY = "Ab3dEf6hIj9lMn2pQr5tUv8xYz1bCd4fGh7jKl0m"
JWT = f"eyJhbGciOiJIUzI1NiJ9.eyJ{BODY}.{BODY}"
BEGIN, END = "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"

# text, what is shown
HIDDEN = [
    (f"t=ghp_{BODY} end", "t=ghp_*** end"),
    (f"ghs_{BODY}", "ghs_***"),
    (f"x glpat-{BODY}.01.a= y", "x glpat-*** y"),
    (f"glrt-t1_{BODY}", "glrt-***"),
    (f"key sk-ant-api03-{BODY}", "key sk-ant-api03-***"),
    (f"key sk-ant-oat01-{BODY}", "key sk-ant-oat01-***"),
    (f"sk-svcacct-{BODY},", "sk-svcacct-***,"),
    (f"sk-or-v1-{BODY},", "sk-or-v1-***,"),
    (f"sk-{BODY[:32]}", "sk-***"),
    ("id ASIAQ3EGRSTUVWXYZ234.", "id ASIA***."),
    (f"AIza{BODY[:35]}", "AIza***"),
    (f"xoxb-{BODY}", "xoxb-***"),
    (f"npm_{BODY[:36]}", "npm_***"),
    (f"rnr_{BODY[:40]}_-x", "rnr_***"),
    (f"pypi-AgE{BODY}{BODY}", "pypi-AgE***"),
    (f"hf_{BODY[:34]}", "hf_***"),
    (f"sk_live_{BODY}", "sk_live_***"),
    (f"rk_test_{BODY}", "rk_test_***"),
    (f"hvs.{BODY}", "hvs.***"),
    (f"AGE-SECRET-KEY-1{'Q3EGRST5' * 8}", "AGE-SECRET-KEY-1***"),
    (f"cookie={JWT};", "cookie=eyJ***;"),
    (f"\\nhf_{BODY[:34]}", "\\nhf_***"),
    (f"%3Dhf_{BODY[:34]}", "%3Dhf_***"),
    (f"{{'Authorization': 'Bearer {BODY}'}}", "{'Authorization': 'Bearer ***'}"),
    (f'"{{\\"authorization\\": \\"token {BODY}\\"}}"', '"{\\"authorization\\": \\"token ***\\"}"'),
    ("AUTHORIZATION: basic dTpw\nnext", "AUTHORIZATION: basic ***\nnext"),
    ('Authorization: Digest username="u", response="r"\r\nx', "Authorization: Digest ***\r\nx"),
    ("Proxy-Authorization: Basic dTpw", "Proxy-Authorization: Basic ***"),
    ("X-Api-Key: abc123\n", "X-Api-Key: ***\n"),
    ('"x-api-key":"abc123"', '"x-api-key":"***"'),
    ("PRIVATE-TOKEN: abc123 x", "PRIVATE-TOKEN: *** x"),
    ("//registry/:_authToken=abc123\n", "//registry/:_authToken=***\n"),
    ("npm_authToken=abc123\n", "npm_authToken=***\n"),
    ("https://x/?a=1&access_token=abc#f", "https://x/?a=1&access_token=***"),
    ("?sig=abc&amp;api_key=def&amp;c=1", "?sig=***&amp;api_key=***&amp;c=1"),
    ('"?sig=abc\\u0026password=def\\u0026c"', '"?sig=***\\u0026password=***\\u0026c"'),
    ("postgres://u:p:w@h/db redis://:pw@h", "postgres://u:***@h/db redis://:***@h"),
    ("https://a@b:c@d@e/ x", "https://a@b:***@e/ x"),
    ("https:\\/\\/u:pw@h\\/p", "https:\\/\\/u:***@h\\/p"),
    (f"{BEGIN}\nMIIE\n{END}\n", f"{BEGIN}***{END}\n"),
    (f"{BEGIN}\\nMIIE\\n{END}\\n", f"{BEGIN}***{END}\\n"),
    (f"{BEGIN} {BODY}{BODY}", f"{BEGIN}***"),
    (f"{BEGIN}\nMIIEow", f"{BEGIN}***"),
    (f"{BEGIN}\n{'QUJD' * 30}|rest", f"{BEGIN}***|rest"),
]
SHOWN = [
    "pip install sk-learn ghp_docs glpat-x hf_home npm_config_cache rnr_token_file",
    f"task-{BODY[:32]} and disk-{BODY[:32]}",
    "https://host:8443/a ssh://git@host/x mail me@host git@host:o/r",
    "https://alice@host/ http://localhost:8080",
    "password=visible sig=visible",
    "Authorization: none",
    f"expected '{BEGIN}' but got nothing",
    f"web_1 | {BEGIN}\nweb_1 | MIIE\n",
    "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----\n",
    "eyJhbGciOiJIUzI1NiJ9 alone",
]


def chunked(data: bytes, edges: list[int], *, automaton: bool) -> bytes:
    stream = FormatStream(automaton=automaton)
    cuts = itertools.pairwise([0, *edges, len(data)])
    return b"".join(stream.feed(data[a:b]) for a, b in cuts) + stream.close()


@ENGINES
@pytest.mark.parametrize(("text", "shown"), [*HIDDEN, *((text, text) for text in SHOWN)])
def test_each_rule_in_every_chunking(text, shown, automaton):
    """A secret is hidden and its prefix stays; what only looks similar is not touched, wherever it is cut."""
    data = text.encode()

    assert chunked(data, [], automaton=automaton) == shown.encode()
    assert chunked(data, list(range(len(data))), automaton=automaton) == shown.encode()
    for cut in range(len(data)):
        assert chunked(data, [cut], automaton=automaton) == shown.encode()


PIECES = st.one_of(
    st.sampled_from([text for text, _ in HIDDEN] + SHOWN).flatmap(
        lambda text: st.integers(1, len(text)).map(lambda size: text[:size])
    ),
    st.sampled_from([anchor.decode() for rule in RULES for anchor in rule.anchors]),
    st.sampled_from(["://", "@", ":", "/", "?", "&", " ", "\n", '"', "-----END ", BODY, "a", "\\"]),
    st.text("ab@:/?&=-_. eyJ", max_size=12),
)


@given(pieces=st.lists(PIECES, max_size=8), data=st.data())
@settings(max_examples=600, deadline=None)
def test_no_chunking_changes_the_output(pieces, data):
    """Whatever is put together, both engines give the same output in one piece and in any pieces."""
    text = "".join(pieces).encode()
    whole = chunked(text, [], automaton=True)
    edges = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))

    assert chunked(text, edges, automaton=True) == whole
    assert chunked(text, edges, automaton=False) == whole
    assert chunked(text, list(range(len(text))), automaton=True) == whole


def test_only_a_body_is_held_back():
    """Prompts and prefixes are out at once."""
    stream = FormatStream()

    assert stream.feed(b"Password: ") == b"Password: "
    assert stream.feed(b"t=ghp_") == b"t=ghp_"
    assert stream.feed(b"Ab3") == b""
    assert stream.feed(b" https://bot:pw") == b"Ab3 https://"
    assert stream.feed(b"@host and more") == b"bot:***@host and more"


@pytest.mark.parametrize(
    "start", [b"ghp_" + BODY.encode(), b"?sig=", BEGIN.encode() + b"\n", b"https://u:", b"eyJ"]
)
def test_an_endless_secret_costs_no_memory(start):
    """What goes on for ever is swallowed, or given up; nothing piles up."""
    stream = FormatStream()
    stream.feed(start)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(400):
        stream.feed(b"A" * 65536)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10
    assert len(stream._tail) <= MAX_OPEN_BYTES + 65536


def test_anchors_fit_into_what_is_kept():
    """An anchor that is cut in two is found with the next chunk."""
    assert max(len(anchor) for rule in RULES for anchor in rule.anchors) <= MAX_ANCHOR_BYTES


def test_anchors_in_any_case_have_a_core():
    """Without one, every case of every letter of it would be looked for."""
    anchors = [anchor for rule in RULES if rule.any_case for anchor in rule.anchors]

    assert [anchor for anchor in anchors if not any(core in anchor for core in CORES)] == []
    assert [anchor for anchor in anchors if anchor != anchor.lower()] == []


@ENGINES
def test_headers_and_parameters_count_in_any_case(automaton):
    """Every letter of an anchor that has no case of its own may be large or small."""
    source = random.Random(3)
    keys = [anchor.decode() for rule in RULES for anchor in rule.anchors if anchor.endswith(b"=")]
    for text, shown in [
        ("authorization: basic dTpw\n", "authorization: basic ***\n"),
        ("x-api-key: abc123\n", "x-api-key: ***\n"),
        ("private-token: abc123\n", "private-token: ***\n"),
        ("_authtoken=abc123\n", "_authtoken=***\n"),
        *((f"?{key}abc#f", f"?{key}***") for key in keys),
    ]:
        end = text.index("dTpw" if "dTpw" in text else "abc")
        for _ in range(20):
            cased = "".join(source.choice((c.lower(), c.upper())) for c in text[:end])
            data = (cased + text[end:]).encode()

            assert chunked(data, [], automaton=automaton) == (cased + shown[end:]).encode()
