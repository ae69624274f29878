"""What the agent-runner and the process of a proxy know of each other. Leaf module: the agent-runner loads nothing else of it."""

from __future__ import annotations

CONTROL_FD = 3
"""The socket to the agent-runner, in the process."""
MAX_MESSAGE_BYTES = 128 << 10
READY = b"ready"
FAILED = b"failed "
"""Begins the message that says why there is no proxy."""
PORT = 3128
"""On the loopback inside."""
