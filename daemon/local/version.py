"""The installed version, found without importlib.metadata, whose import costs more than a whole status."""

from __future__ import annotations

import os
import sys

_PREFIX, _SUFFIX = "runner-", ".dist-info"


def version() -> str:
    """Return the version of this installation, or ``unknown`` for a bare source tree."""
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - no pathlib for a glance
        except OSError:
            continue
        for name in names:
            if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
                return name[len(_PREFIX) : -len(_SUFFIX)]
    return "unknown"
