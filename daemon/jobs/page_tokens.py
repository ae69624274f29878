"""Page tokens: where the next page of a list begins, opaque to clients."""

from __future__ import annotations

import base64
import binascii

from daemon.errors import UsageError

MAX_POSITION = (1 << 63) - 1


def encode_page_token(position: int) -> str:
    """Return the token of the page that begins below ``position``."""
    return base64.urlsafe_b64encode(str(position).encode()).decode()


def decode_page_token(token: str) -> int:
    """Return the position in a token; for the empty token, that of the first page.

    Raises:
        UsageError: The token is not one of ours.
    """
    if not token:
        return MAX_POSITION
    try:
        position = int(base64.urlsafe_b64decode(token.encode("ascii")))
    except (ValueError, binascii.Error):
        position = 0
    # Comparing the way back refuses what the decoders let pass: stray characters, signs, spaces.
    if not 0 < position <= MAX_POSITION or encode_page_token(position) != token:
        raise UsageError("the page token is not one of this server's: start again without one")
    return position


def check_page_size(page_size: int) -> None:
    """Check how many entries a page may have.

    Raises:
        UsageError: Less than one.
    """
    if page_size < 1:
        raise UsageError("the page size must be at least 1")
