"""The engine's stream is split the same way, however it is cut on its way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.container.frames import Channel, FrameError, FrameSplitter

CHANNELS = st.sampled_from([Channel.STDOUT, Channel.STDERR])
FRAMES = st.lists(st.tuples(CHANNELS, st.binary(max_size=40)), max_size=12)


def encoded(channel: Channel, data: bytes) -> bytes:
    """Return one frame as the engine sends it."""
    return bytes([channel, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@given(FRAMES, st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_any_cut_gives_the_same(frames, cuts):
    """Every byte arrives, in order, on its own channel."""
    stream = b"".join(encoded(*frame) for frame in frames)
    splitter, position = FrameSplitter(), 0
    seen: list[tuple[Channel, bytes]] = []
    while position < len(stream):
        for cut in cuts:
            seen += splitter.feed(stream[position : position + cut])
            position += cut
    for channel in Channel:
        wanted = b"".join(data for each, data in frames if each is channel)
        assert b"".join(data for each, data in seen if each is channel) == wanted
    assert b"".join(data for _, data in seen) == b"".join(data for _, data in frames)


def test_a_large_frame_comes_in_pieces():
    """No piece is larger than the port allows, whatever the engine sends."""
    pieces = list(FrameSplitter().feed(encoded(Channel.STDOUT, b"x" * (1 << 20))))
    assert max(len(data) for _, data in pieces) == 256 << 10
    assert sum(len(data) for _, data in pieces) == 1 << 20


@pytest.mark.parametrize("header", [b"\x03\0\0\0\0\0\0\1", b"\1\0\0\1\0\0\0\1", b"HTTP/1.1"])
def test_nonsense_is_refused(header):
    """What is no header ends the stream: no byte after it has a meaning."""
    with pytest.raises(FrameError):
        list(FrameSplitter().feed(header + b"x"))
