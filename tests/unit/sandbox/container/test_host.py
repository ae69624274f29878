"""What an engine says of itself."""

from __future__ import annotations

from sandbox.container.host import Host

FACTS = {"MemTotal": 1 << 30, "NCPU": 2, "DockerRootDir": "/data", "ServerVersion": "4.3.1"}


def test_the_same_engine_is_known_again():
    """By its id; Podman draws a new one for each answer, and is known by its place and version."""
    one, other = ({**FACTS, "ID": text} for text in ("x", "y"))
    assert Host.of(one, "image") == Host.of(one, "image") != Host.of(other, "image")
    podman = Host.of(one, "image", podman=True)
    assert podman == Host.of(other, "image", podman=True)
    assert podman != Host.of({**one, "ServerVersion": "5"}, "image", podman=True)
