"""What a secret may be called."""

from __future__ import annotations

import pytest

from daemon.errors import UsageError
from daemon.secrets.store.names import parse_name


@pytest.mark.parametrize("path", ["a", "a/b", "npm/tokens", "A-1_", "/".join("abcdefgh"), "x" * 64])
def test_a_path_within_the_grammar(path):
    """One to eight parts."""
    assert str(parse_name(path, "KEY")) == f"{path}:KEY"


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "../../etc/passwd",
        "a//b",
        "/abs",
        "a/",
        "a b",
        "a\n",
        "a:b",
        "é",
        "\u041a",
        "x" * 65,
        "/".join("abcdefghi"),
    ],
)
@pytest.mark.case("set-path-traversal")
def test_a_path_beside_the_grammar(path):
    """It is refused, and not repeated: it may be a value in the wrong place."""
    with pytest.raises(UsageError) as refused:
        parse_name(path, "KEY")
    assert not path.strip("./ab") or path not in str(refused.value)


@pytest.mark.parametrize(
    "key", ["", "KEY\n", "\u041aEY", "a b", "a/b", "a:b", "x" * 129, "K\u0301"]
)
@pytest.mark.case("set-unicode-key-refused")
def test_a_key_beside_the_grammar(key):
    """ASCII letters, digits, underscore and dash only, to the end of the text."""
    with pytest.raises(UsageError):
        parse_name("a", key)
