"""What kind of file system a folder is on, for what is true of some kinds only (statfs(2))."""

from __future__ import annotations

import ctypes
import struct

from sandbox.process import libc

_EXT, _XFS = 0xEF53, 0x58465342
"""Their numbers in linux/magic.h; that of ext2, ext3 and ext4 is the same."""
_STATFS_BYTES = 256
"""More than the structure has, whose first word is the number."""


def tells_of_attributes(fd: int) -> bool:
    """Tell whether the time of a file's last change moves for certain with its extended attributes; called once per workspace that is made.

    False of kinds that nobody has looked at.
    """
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    if libc.fstatfs(fd, found) != 0:
        return False
    return struct.unpack_from("@l", found)[0] in {_EXT, _XFS}
