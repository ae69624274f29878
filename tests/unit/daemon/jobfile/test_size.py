"""Sizes with and without units."""

from __future__ import annotations

import pytest

from daemon.jobfile.size import MAX_SIZE_BYTES, parse_size


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0), (12, 12), ("12", 12), ("12B", 12), ("2GiB", 2 << 30), ("2Gi", 2 << 30),
        ("512MiB", 512 << 20), ("512m", 512_000_000), ("1.5GB", 1_500_000_000), ("1 KiB", 1024),
        ("0.5TiB", 1 << 39), (MAX_SIZE_BYTES, MAX_SIZE_BYTES),
    ],
)  # fmt: skip
def test_size(value, expected):
    """Numbers are bytes; units are decimal, or binary with an i."""
    assert parse_size(value) == expected


@pytest.mark.parametrize(
    "value",
    [-1, "-1", 1.5, True, None, [], "", "GiB", "1.GB", "1e9", "1PB", "1 2", "1iB", "1G\0",
     MAX_SIZE_BYTES + 1, "9" * 19 + "TB", "٣"],
)  # fmt: skip
def test_no_size(value):
    """Anything else is refused."""
    with pytest.raises(ValueError, match=r"must|too large"):
        parse_size(value)
