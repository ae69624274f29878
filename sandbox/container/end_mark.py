"""Finds where the output of a command ends, in a container that goes on."""

from __future__ import annotations


class EndMark:
    """Takes pieces of output and gives them back without the mark, however it is split. One per command."""

    def __init__(self, mark: bytes) -> None:
        """Remember what the launcher writes behind the output; never empty."""
        self._mark = mark
        self._held = b""
        self.found = False

    def feed(self, piece: bytes) -> bytes:
        """Return what is certainly output; ``found`` says that nothing follows it."""
        data = self._held + piece
        position = data.find(self._mark)
        if position >= 0:
            self.found, self._held = True, b""
            return data[:position]
        kept = self._begun(data)
        self._held = data[len(data) - kept :]
        return data[: len(data) - kept]

    def rest(self) -> bytes:
        """Return what looked like the beginning of a mark that never came."""
        held, self._held = self._held, b""
        return held

    def _begun(self, data: bytes) -> int:
        """Return how many of the last bytes may begin a mark."""
        first = data.find(self._mark[:1], max(0, len(data) - len(self._mark) + 1))
        while first >= 0:
            if self._mark.startswith(data[first:]):
                return len(data) - first
            first = data.find(self._mark[:1], first + 1)
        return 0
