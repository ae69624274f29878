"""Where the store of a person lies (XDG Base Directory)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from daemon.errors import UsageError


def find_store_dir(env: Mapping[str, str]) -> Path:
    """Return ``$XDG_CONFIG_HOME/runner/secrets``, else below HOME; it need not exist.

    Raises:
        UsageError: The environment names no absolute place.
    """
    base = env.get("XDG_CONFIG_HOME", "")
    if base.startswith("/"):
        return Path(base) / "runner" / "secrets"
    if env.get("HOME", "").startswith("/"):
        return Path(env["HOME"]) / ".config" / "runner" / "secrets"
    raise UsageError("no place for the secret store: set HOME or XDG_CONFIG_HOME")
