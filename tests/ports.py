"""Ports for servers that must be told theirs, or come back to the same one."""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST = 10_000
TRIES = 100


def quiet_port() -> int:
    """Return a port of the loopback that is free, and stays so: below those that the kernel gives to who asks for any (ip(7))."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    for _ in range(TRIES):
        port = random.SystemRandom().randrange(LOWEST, int(given[0]))
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no free port from {LOWEST} to {given[0]}")
