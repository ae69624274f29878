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
_PROXY = f"http://127.0.0.1:{PORT}"
PROXY_ENV = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), _PROXY),
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), _PROXY),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1"),
    "NODE_USE_ENV_PROXY": "1",
}
"""What tells the programs of a job where the proxy is; one that does not look reaches nothing."""
