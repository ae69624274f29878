"""The short form of the fuzzing of the proxy's requests; the long one is a part of ``make chaos``."""

from __future__ import annotations

from tests.chaos.request_fuzz import check, fuzz


def test_made_up_requests() -> None:
    """Each is understood or refused, and what goes on is one plain request; enough are understood to mean something."""
    assert fuzz(500, 7) > 5


def test_the_check_bites() -> None:
    """A plain request passes it."""
    assert check(b"GET http://a.b/ HTTP/1.1\r\nHost: evil.test\r\n\r\n")
    assert not check(b"GET / HTTP/1.1\r\n\r\n")
