"""How a daemon tells whoever started it how far it is: JSON lines on an inherited descriptor."""

from __future__ import annotations

import json
import os
from typing import Any


class Progress:
    """The daemon's end. A reader that has gone is no error: the daemon is started all the same."""

    def __init__(self, fd: int) -> None:
        """Take a pipe or a connection; -1 for nobody."""
        self._fd = fd
        if fd >= 0:
            os.set_inheritable(fd, False)
            os.set_blocking(fd, True)  # a predecessor's event loop left it otherwise

    def send(self, line: dict[str, Any]) -> None:
        """Send one line."""
        if self._fd < 0:
            return
        try:
            os.write(self._fd, json.dumps(line).encode() + b"\n")
        except OSError:
            self.close()

    def close(self) -> None:
        """Say no more. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
