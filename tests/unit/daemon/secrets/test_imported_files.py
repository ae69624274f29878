"""Files that secrets are imported from: .env files and documents in clear text."""

from __future__ import annotations

import json

import pytest

from daemon.errors import UsageError
from daemon.secrets.store.dotenv import parse_dotenv
from daemon.secrets.store.names import parse_name
from daemon.secrets.store.plain_file import parse_plain, plain_document
from daemon.secrets.store.stored_secret import StoredSecret

DOTENV = rb"""
# a comment
export A=1
B= two words   # a comment
C=#x
D='a
$b' # a comment
E="x\ny\$ \q \"z\""
F=
	G =	"q"
H=a#b
I=$A${B}
B=again
LAST=end"""


def test_dotenv_lines():
    """As a shell reads them, apart from what a shell would expand."""
    assert parse_dotenv(DOTENV) == {
        "A": "1",
        "B": "again",
        "C": "#x",
        "D": "a\n$b",
        "E": 'x\ny$ \\q "z"',
        "F": "",
        "G": "q",
        "H": "a#b",
        "I": "$A${B}",
        "LAST": "end",
    }


def test_dotenv_of_windows():
    """A mark of the byte order and CRLF are no part of a name or value."""
    assert parse_dotenv(b"\xef\xbb\xbfA=1\r\nB='x\r\ny'\r\n") == {"A": "1", "B": "x\ny"}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"A=1\nsk-canary\n", "line 2: expected NAME=value"),
        (b"A=1\nB='sk-canary", "line 2: the quote ' is not closed"),
        (b'B="sk-canary\\"', 'line 1: the quote " is not closed'),
        (b"A='x\ny'sk-canary", "line 2: there is more after the closing quote"),
        (b"A=\xff", "it is not valid UTF-8"),
        (b"1A=x", "line 1: expected NAME=value"),
    ],
)
def test_a_malformed_dotenv_names_the_line_and_not_its_text(data, problem):
    """The text may be a secret."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the text is compared
        parse_dotenv(data)
    assert str(refused.value) == problem


def test_what_is_exported_can_be_imported():
    """Text as text, bytes as base64."""
    values = {
        parse_name("a/b", "T"): b"x\ny",
        parse_name("a", "B"): b"\xff\0",
        parse_name("a", "E"): b"",
    }
    stored = {name: StoredSecret(value, "") for name, value in values.items()}

    assert parse_plain(json.loads(plain_document(stored))) == values


def test_a_bare_tree_is_a_document_too():
    """As the first generation keeps it."""
    assert parse_plain({"a": {"K": "v"}, "b": {}}) == {parse_name("a", "K"): b"v"}


@pytest.mark.case("list-terminal-escape")
def test_names_beside_the_grammar_are_listed_harmlessly():
    """All of them, with control characters made visible."""
    with pytest.raises(UsageError) as refused:
        parse_plain({"a": {"K\x1b[31m": "v", "OK": "v"}, "//b": {"K": "v"}})
    text = str(refused.value)
    assert "\x1b" not in text
    assert r"'a:K\x1b[31m'" in text
    assert "'//b:K'" in text
    assert "OK" not in text


@pytest.mark.parametrize(
    "tree",
    [{"a": "sk-canary"}, {"a": {"K": 7}}, {"a": {"K": ["sk-canary"]}}, {"a": {"K": {"v": 1}}}],
)
def test_values_that_are_none_are_refused(tree):
    """Without what they hold."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the text is looked at
        parse_plain(tree)
    assert "canary" not in str(refused.value)
