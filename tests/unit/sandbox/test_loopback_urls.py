"""URLs of loopback come to name another host, and nothing else changes."""

from __future__ import annotations

import time

import pytest

from sandbox.loopback_urls import with_host


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("http://localhost:5010", "http://H:5010"),
        ("HTTP://LOCALHOST/x?y", "HTTP://H/x?y"),
        ("postgres://u:p@127.0.0.1/db", "postgres://u:p@H/db"),
        ("jdbc:postgresql://127.1.2.3:5432/db", "jdbc:postgresql://H:5432/db"),
        ("redis://[::1]:6379", "redis://H:6379"),
        ("a=http://localhost b=ws://localhost:1", "a=http://H b=ws://H:1"),
        ("http://localhost", "http://H"),
        ("http://localhost.example.com", "http://localhost.example.com"),
        ("http://example.com/http/localhost", "http://example.com/http/localhost"),
        ("http://mylocalhost:1", "http://mylocalhost:1"),
        ("http://127.0.0.1.example.com", "http://127.0.0.1.example.com"),
        ("http://user:localhost@example.com", "http://user:localhost@example.com"),
        ("http://localhost:pw@example.com", "http://localhost:pw@example.com"),
        ("localhost:5010", "localhost:5010"),
        ("127.0.0.1", "127.0.0.1"),
        ("", ""),
    ],
)
def test_with_host(before, after):
    """One kind of URL per case."""
    assert with_host(before, "H") == after


@pytest.mark.parametrize("piece", ["a.", "a://", "a://b", "://", "a@", "a://localhost:1"])
def test_a_text_that_is_all_beginnings_takes_no_time(piece: str):
    """A job writes its variables, and whoever reads them has the leases of others to renew."""
    began = time.process_time()
    with_host(piece * (128 * 1024 // len(piece)) + " http://x", "H")
    assert time.process_time() - began < 1
