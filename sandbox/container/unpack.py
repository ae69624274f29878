"""Reads one file out of a tar archive that a hostile container may have shaped. Nothing is written anywhere."""

from __future__ import annotations

import base64
import enum
import io
import json
import tarfile

from sandbox.errors import TransferRefusedError

ROOM_FOR_HEADERS = 256 << 10
"""Beside the content: extended headers, padding, the end."""
_GO_TYPE_BITS = 0b1000_1111_0010_1000 << 16
"""Folder, link, device, FIFO, socket, character device, irregular: of Go's ``os.FileMode``."""
_GO_FOLDER = 1 << 31
_GO_LINK = 1 << 27
_SIMPLE = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE})


class Kind(enum.Enum):
    """What lies at a path of a container."""

    FOLDER = "folder"
    FILE = "file"
    LINK = "link"
    OTHER = "other"


def kind_of(facts: str, path: str) -> Kind:
    """Return what lies at a path; arguments as ``check_folder``."""
    bits = _mode(facts, path) & _GO_TYPE_BITS
    return {_GO_FOLDER: Kind.FOLDER, 0: Kind.FILE, _GO_LINK: Kind.LINK}.get(bits, Kind.OTHER)


def check_folder(facts: str, path: str) -> None:
    """Refuse what is no folder on the way to a file.

    Args:
        facts: The header ``X-Docker-Container-Path-Stat``.
        path: For the message.

    Raises:
        TransferRefusedError: It is a link or anything else.
    """
    if _mode(facts, path) & _GO_TYPE_BITS != _GO_FOLDER:
        raise TransferRefusedError(f"{path!r} crosses a link or is no folder")


def check_file(facts: str, path: str, limit_bytes: int) -> None:
    """Refuse what is no regular file, or too large, before any of it is asked for."""
    if _mode(facts, path) & _GO_TYPE_BITS:
        raise TransferRefusedError(f"{path!r} is no regular file")
    size = _facts(facts, path).get("size")
    if isinstance(size, int) and size > limit_bytes:
        raise TransferRefusedError(f"{path!r} is larger than {limit_bytes} bytes")


def single_file(archive: bytes, name: str, limit_bytes: int) -> bytes:
    """Return the content of an archive that must hold one regular file and nothing else.

    Raises:
        TransferRefusedError: It holds something else, too much, or is damaged.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            member = tar.next()
            if member is None or member.type not in _SIMPLE or member.sparse is not None:
                raise TransferRefusedError(f"{name!r} is no regular file")
            if member.name != name:
                raise TransferRefusedError(f"the engine gave another file than {name!r}")
            if member.size > limit_bytes:
                raise TransferRefusedError(f"{name!r} is larger than {limit_bytes} bytes")
            file = tar.extractfile(member)
            content = b"" if file is None else file.read(limit_bytes + 1)
            blocks = -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            behind = archive[member.offset_data + blocks :]
            if len(content) != member.size or behind.strip(b"\0"):
                raise TransferRefusedError(f"the archive of {name!r} is damaged")
            return content
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise TransferRefusedError(f"the archive of {name!r} is damaged: {error}") from error


def _mode(facts: str, path: str) -> int:
    mode = _facts(facts, path).get("mode")
    if not isinstance(mode, int):
        raise TransferRefusedError(f"the engine does not say what {path!r} is")
    return mode


def _facts(facts: str, path: str) -> dict[str, object]:
    try:
        value = json.loads(base64.b64decode(facts))
    except ValueError as error:
        raise TransferRefusedError(f"the engine does not say what {path!r} is") from error
    return value if isinstance(value, dict) else {}
