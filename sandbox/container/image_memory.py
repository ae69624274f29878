"""Which image last worked for each project, for jobs that name none where no default is set."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path

MAX_PROJECTS = 10_000

logger = logging.getLogger(__name__)


class ImageMemory:
    """A small file, read and written as a whole; several agent-runners of one installation share it. The last one to write wins."""

    def __init__(self, path: Path | None) -> None:
        """Remember where; without a file nothing is remembered longer than this process lives."""
        self._path = path
        self._known: dict[str, str] = {}

    def image_of(self, project: str) -> str:
        """Return the name of the image; empty if none is known."""
        return self._read().get(project, "")

    def keep(self, project: str, image: str) -> None:
        """Remember that an image has worked. Called after each command; writes only what is new."""
        known = self._read()
        if known.get(project) == image or (len(known) >= MAX_PROJECTS and project not in known):
            return
        self._known = {**known, project: image}
        if self._path is None:
            return
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            new.write_text(json.dumps(self._known, indent=1) + "\n")
            new.replace(self._path)
        except OSError as error:
            logger.warning(
                "An image cannot be remembered",
                extra={"action": "image_not_remembered", "error": str(error)},
            )
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)

    def _read(self) -> dict[str, str]:
        if self._path is None:
            return self._known
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return self._known  # a file that somebody has damaged is no reason to run nothing
        if not isinstance(found, dict):
            return self._known
        return {str(name): str(image) for name, image in found.items()}
