"""One value as it lies in the store."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daemon.errors import UsageError

MAX_VALUE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A value, as bytes, and when it was stored; never shows the value by itself."""

    _value: bytes = field(repr=False)
    time: str = field(compare=False)
    """RFC 3339, UTC."""

    @property
    def size(self) -> int:
        """Return the length in bytes."""
        return len(self._value)

    def reveal(self) -> bytes:
        """Return the bytes; the caller keeps them out of logs, errors, argv and files."""
        return self._value

    def reveal_text(self) -> str | None:
        """Return the value as text, or None when it is not UTF-8."""
        try:
            return self._value.decode()
        except UnicodeDecodeError:
            return None

    def to_json(self) -> dict[str, str]:
        """Return the entry as it stands inside the encrypted part."""
        text = self.reveal_text()
        if text is None:
            encoded = base64.b64encode(self._value).decode()
            return {"v": encoded, "enc": "base64", "t": self.time}
        return {"v": text, "enc": "utf-8", "t": self.time}


def check_size(value: bytes) -> None:
    """Check that a value is not too long to be stored.

    Raises:
        UsageError: It is.
    """
    if len(value) > MAX_VALUE_BYTES:
        raise UsageError(f"the value is longer than a secret may be ({MAX_VALUE_BYTES:,} bytes)")


def from_json(entry: Mapping[str, Any]) -> StoredSecret:
    """Return the value of one entry.

    Raises:
        ValueError: The entry is malformed; the text holds no value.
    """
    text, encoding, time = entry.get("v"), entry.get("enc"), entry.get("t", "")
    if not isinstance(text, str) or not isinstance(time, str):
        raise ValueError("an entry without a value")  # noqa: TRY004 - of the content
    if encoding == "utf-8":
        try:
            return StoredSecret(text.encode(), time)
        except UnicodeEncodeError:
            raise ValueError("a value that is no text") from None
    if encoding == "base64":
        try:
            return StoredSecret(base64.b64decode(text, validate=True), time)
        except binascii.Error:
            raise ValueError("a value that is no base64") from None
    raise ValueError("a value in an unknown encoding")
