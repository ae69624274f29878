"""What a dry run says of the image of a container."""

from __future__ import annotations

from daemon.cli.dry_container import NO_ENGINE, PULLED, ImageState


def test_an_image_is_named_where_there_is_one():
    """With whose word it is; where the engine is away, an image that nobody has named is not made up."""
    named = ImageState(name="debian:12", origin="job file", state=PULLED)
    nameless = ImageState(name="", origin="", state=NO_ENGINE, reason="no socket")

    assert named.describe() == "debian:12 (by job file) would be fetched"
    assert nameless.describe() == "cannot be looked for: no socket"
