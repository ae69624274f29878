"""Who we are to a registry of images: a name and a password, sent with a pull and kept nowhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

DOCKER_HUB = "docker.io"
_HUB_ADDRESS = "https://index.docker.io/v1/"
"""By what name an engine knows Docker's own registry."""
HIDDEN = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryLogin:
    """What a registry wants to see. The password is in no representation of it."""

    username: str
    password: str = field(repr=False)

    def header(self, host: str) -> str:
        """Return the value of ``X-Registry-Auth`` for the registry at a host."""
        address = _HUB_ADDRESS if host == DOCKER_HUB else host
        said = {"username": self.username, "password": self.password, "serveraddress": address}
        return base64.urlsafe_b64encode(json.dumps(said).encode()).decode()

    def hide(self, text: str) -> str:
        """Return a message of an engine without the password."""
        return text.replace(self.password, HIDDEN) if self.password else text


Logins = Callable[[str], Awaitable[RegistryLogin | None]]
"""Returns who we are at a host; None if nobody in particular. Called before each pull."""


def registry_of(image: str) -> str:
    """Return the host, with its port, that an image comes from, as Docker reads names."""
    first, slash, _ = image.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    return first if is_host else DOCKER_HUB
