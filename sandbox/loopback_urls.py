"""URLs that name the machine on which they were written, for a command that is not quite on it."""

from __future__ import annotations

import re

_LOOPBACK = re.compile(
    # Not from the beginning of the scheme on: a long text of beginnings would be read again for each of them.
    r"(?<=[a-z0-9+.-])(?P<before>://(?:[^\s/@\"'<>]*@)?)"
    r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])"
    r"(?=(?::[0-9]*)?(?:[/?#,;\s\"'<>]|$))",
    re.IGNORECASE,
)


def with_host(text: str, host: str) -> str:
    """Return a text in which every URL of loopback names a host instead; ports and passwords stay."""
    if "://" not in text:
        return text
    return _LOOPBACK.sub(lambda match: match["before"] + host, text)
