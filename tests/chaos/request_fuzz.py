"""Requests that a job could send to the proxy, made up from the pieces of real ones, and what must hold for each."""

from __future__ import annotations

import re

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from sandbox.network.request import BadRequestError, parse_head

_HOSTS = st.sampled_from(
    [*["a.b", "A.b.", "127.0.0.1", "[::1]"] * 4, "evil.test", "127.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1", "localhost", "", "%61.b", "a.b@c.d", "a.b\\c"]
)  # fmt: skip
_PORTS = st.sampled_from([*["", ":80", ":443"] * 4, ":0", ":65536", ":x", ":", ":0080"])
_PATHS = st.sampled_from([*["", "/", "/a?b", "?q"] * 4, "/#f", "/ ", "/\t", "\\", "/é"])
_METHODS = st.sampled_from([*["GET", "POST", "CONNECT"] * 4, "get", "M-SEARCH", "GET\t", ""])
_VERSIONS = st.sampled_from([*[" HTTP/1.1", " HTTP/1.0"] * 5, " HTTP/2", "", " HTTP/1.1 "])
_ENDS = st.sampled_from([*["\r\n"] * 30, "\n", "\r", "\r\n ", "\r\n\r\n"])
_NAMES = st.sampled_from(
    [*["Host", "Content-Length", "Connection", "X"] * 4, "hOsT", "Transfer-Encoding", "Connection", "Proxy-Authorization", "X", "X ", " X", "", "Content_Length", "Upgrade"]
)  # fmt: skip
_VALUES = st.one_of(
    st.sampled_from(["evil.test", "5", "05", "+5", "5, 5", "chunked", "close, Host, content-length", "identity", "\0", "a\rb"]),
    st.text(max_size=5),
    st.text("abc ,;=5", max_size=20),
)  # fmt: skip
_TARGETS = st.one_of(
    st.builds("http://{}{}{}".format, _HOSTS, _PORTS, _PATHS),
    st.builds("{}{}".format, _HOSTS, _PORTS),
    st.builds("https://{}{}".format, _HOSTS, _PATHS),
    st.text(max_size=10),
)
_FIRST_LINES = st.builds("{} {}{}".format, _METHODS, _TARGETS, _VERSIONS)
_HEADERS = st.lists(st.builds("{}:{}{}".format, _NAMES, _VALUES, _ENDS), max_size=4)
_MADE_UP = st.builds(
    lambda first, end, headers, last: (first + end + "".join(headers) + last).encode("utf-8", "replace"),
    _FIRST_LINES, _ENDS, _HEADERS, _ENDS,
)  # fmt: skip
HEADS = st.one_of(_MADE_UP, _MADE_UP, _MADE_UP, st.binary(max_size=300))
_LINE = re.compile(rb"[A-Z-]+ /[\x21-\x7e]* HTTP/1\.1|[A-Z-]+ / HTTP/1\.1")


def check(head: bytes) -> bool:
    """Check a head against what must hold; tell whether it was understood.

    Raises:
        AssertionError: Something does not hold.
    """
    try:
        request = parse_head(head)
    except BadRequestError:
        return False
    host, port = request.target
    assert 0 < port < 1 << 16
    assert re.fullmatch(r"[0-9a-z._:-]+", str(host))
    if request.is_tunnel:
        assert (request.head, request.body_bytes) == (b"", 0)
        return True
    sent, empty, rest = request.head.partition(b"\r\n\r\n")
    assert (empty, rest) == (b"\r\n\r\n", b"")
    first, *lines = sent.split(b"\r\n")
    assert _LINE.fullmatch(first)
    assert not any(byte in sent.replace(b"\r\n", b"") for byte in b"\r\n\0")
    headers = [
        (name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)
    ]
    shown = str(request.target)
    assert [v for n, v in headers if n == b"host"] == [
        (shown if port != 80 else shown.rpartition(":")[0]).encode()
    ]
    assert [v for n, v in headers if n == b"connection"] == [b"close"]
    assert not any(n in {b"transfer-encoding", b"upgrade", b"te"} for n, _ in headers)
    lengths = [v for n, v in headers if n == b"content-length"]
    assert [int(length) for length in lengths] in ([], [request.body_bytes])
    assert lengths or request.body_bytes == 0
    return True


def fuzz(examples: int, first: int) -> int:
    """Check made-up requests; return how many were understood."""
    understood = 0

    @seed(first)
    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(HEADS)
    def run(head: bytes) -> None:
        nonlocal understood
        understood += check(head)

    run()
    return understood
