"""Taking files out of a sandbox after its command: the side that walks, and the side that chooses and keeps.

Optional to a sandbox, like ``job_socket.Listening``: a job that asks for outputs needs one that is ``Collecting``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

Read = Callable[[int], bytes]
"""Returns the next bytes of a file, up to so many; nothing at its end. Raises OSError."""


class Taker(Protocol):
    """Chooses files and keeps them; every method is called on one worker thread, and may raise to end the collection.

    Names are relative to the folder that is collected, with slashes; bytes that are not UTF-8 are surrogates in them.
    """

    def enters(self, folder: str) -> bool:
        """Tell whether anything in a folder may be wanted."""
        ...

    def wants(self, name: str) -> bool:
        """Tell whether a file is wanted."""
        ...

    def take(self, name: str, mode: int, size: int, read: Read) -> None:
        """Keep a regular file. Its real size may differ from what is told: another process may still write it."""
        ...

    def link(self, name: str, target: str) -> None:
        """Note a link that was wanted; nobody follows it."""
        ...

    def refuse(self, name: str, why: str) -> None:
        """Note that something that was wanted cannot be taken, such as a FIFO."""
        ...

    def roots(self) -> list[str]:
        """Return paths that hold all that can be wanted; an empty one is the whole folder. For those whose walk is dear."""
        ...


@runtime_checkable
class Collecting(Protocol):
    """A sandbox out of which files can be taken."""

    async def collect(self, path: str, taker: Taker) -> None:
        """Walk a folder below the job root, in the order of names, and offer what it holds.

        No link is followed, whatever the job swaps meanwhile. A folder that does not exist holds nothing. Called after
        ``exec`` has ended; when it returns or raises, the taker is not called any more.

        Raises:
            TransferRefusedError: The path leaves the job root or crosses a link, or there is more than can be looked at.
            SandboxBrokenError: The sandbox was destroyed, or broke.
        """
        ...
