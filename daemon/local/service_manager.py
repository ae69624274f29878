"""Words to the service manager that started a foreground daemon, as sd_notify(3) has them."""

from __future__ import annotations

import logging
import socket

logger = logging.getLogger(__name__)


def notify(address: str, words: str) -> None:
    """Send ``READY=1`` or ``STOPPING=1``; an empty address means that nobody wants to know."""
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(words.encode(), target)
    except OSError:
        logger.warning(
            "The service manager cannot be told", extra={"action": "notify_failed"}, exc_info=True
        )
