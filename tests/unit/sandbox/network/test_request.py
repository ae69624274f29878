"""The requests of a job are understood or refused; nothing goes on that was not understood."""

from __future__ import annotations

import pytest

from sandbox.network.request import MAX_HEAD_BYTES, BadRequestError, parse_head


def head(*lines: str) -> bytes:
    """Return a head of these lines."""
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def test_a_tunnel() -> None:
    """Its headers are of no interest."""
    request = parse_head(head("CONNECT Example.COM.:443 HTTP/1.1", "Host: other", "X: y"))
    assert (request.is_tunnel, str(request)) == (True, "CONNECT example.com:443")


def test_a_plain_request_is_written_anew() -> None:
    """Host is the checked one, what concerns one connection is left out, and the connection ends."""
    request = parse_head(
        head(
            "POST http://Example.com:8080/a?b=c HTTP/1.0",
            "Host: evil.test",
            "host: evil2.test",
            "Content-Length: 5",
            "Connection: keep-alive, X-Private",
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: Basic abc",
            "Upgrade: h2c",
            "TE: trailers",
            "X-Private: 1",
            "Accept:  */* ",
        )
    )
    assert request.head == head(
        "POST /a?b=c HTTP/1.1",
        "Host: example.com:8080",
        "Content-Length: 5",
        "Accept: */*",
        "Connection: close",
    )
    assert (request.body_bytes, str(request)) == (5, "POST example.com:8080")


@pytest.mark.parametrize(
    ("address", "line", "host"),
    [
        ("http://a.b", "GET / HTTP/1.1", "Host: a.b"),
        ("http://a.b:80/", "GET / HTTP/1.1", "Host: a.b"),
        ("http://a.b?x", "GET /?x HTTP/1.1", "Host: a.b"),
        ("http://10.0.0.1:81/x", "GET /x HTTP/1.1", "Host: 10.0.0.1:81"),
        ("http://[::1]/x", "GET /x HTTP/1.1", "Host: [::1]"),
    ],
)
def test_paths(address: str, line: str, host: str) -> None:
    """The target is sent a path and its own name."""
    first, second, *_ = parse_head(head(f"GET {address} HTTP/1.1")).head.split(b"\r\n")
    assert (first.decode(), second.decode()) == (line, host)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["GET / HTTP/1.1"], 400),
        (["GET https://a.b/ HTTP/1.1"], 400),
        (["GET ftp://a.b/ HTTP/1.1"], 400),
        (["GET http://a.b/#x HTTP/1.1"], 400),
        (["GET http://user@a.b/ HTTP/1.1"], 400),
        (["GET http://a.b\\@evil.test/ HTTP/1.1"], 400),
        (["GET http://a%2eb/ HTTP/1.1"], 400),
        (["GET http:///x HTTP/1.1"], 400),
        (["GET http://a.b/ HTTP/2"], 400),
        (["GET http://a.b/ x HTTP/1.1"], 400),
        (["GET  http://a.b/ HTTP/1.1"], 400),
        (["get http://a.b/ HTTP/1.1"], 400),
        (["CONNECT a.b HTTP/1.1"], 400),
        (["CONNECT a.b:0 HTTP/1.1"], 400),
        (["CONNECT a.b:99999 HTTP/1.1"], 400),
        (["CONNECT a.b:443/ HTTP/1.1"], 400),
        (["CONNECT http://a.b:443 HTTP/1.1"], 400),
        (["CONNECT ::1:443 HTTP/1.1"], 400),
        (["CONNECT [127.0.0.1]:443 HTTP/1.1"], 400),
        (["CONNECT [fe80::1%eth0]:443 HTTP/1.1"], 400),
        (["CONNECT 127.1:443 HTTP/1.1"], 403),
        (["CONNECT 2130706433:443 HTTP/1.1"], 403),
        (["CONNECT 0x7f.1:443 HTTP/1.1"], 403),
        (["CONNECT 0177.0.0.1:443 HTTP/1.1"], 403),
        (["CONNECT a..b:443 HTTP/1.1"], 403),
        (["POST http://a.b/ HTTP/1.1", "Transfer-Encoding: chunked"], 411),
        (["POST http://a.b/ HTTP/1.1", "Content-Length: 1", "content-length: 2"], 400),
        (["POST http://a.b/ HTTP/1.1", "Content-Length: +1"], 400),
        (["POST http://a.b/ HTTP/1.1", "Content-Length: 1, 1"], 400),
        (["GET http://a.b/ HTTP/1.1", " folded"], 400),
        (["GET http://a.b/ HTTP/1.1", "X : y"], 400),
        (["GET http://a.b/ HTTP/1.1", "X"], 400),
        (["GET http://a.b/ HTTP/1.1", "X: a\nY: b"], 400),
        (["GET http://a.b/ HTTP/1.1", "X: a\0b"], 400),
        (["GET http://a.b/ HTTP/1.1", *["X: y"] * 101], 431),
        (["GET http://a.b/ HTTP/1.1", "X: " + "y" * MAX_HEAD_BYTES], 431),
    ],
)
def test_what_is_refused(lines: list[str], status: int) -> None:
    """Whatever two programs could read in two ways."""
    with pytest.raises(BadRequestError) as caught:
        parse_head(head(*lines))
    assert caught.value.status == status


def test_a_problem_holds_nothing_of_the_request() -> None:
    """It stands in the log, and the request may hold a secret."""
    with pytest.raises(BadRequestError) as caught:
        parse_head(head("GET canary HTTP/1.1"))
    assert "canary" not in caught.value.problem
