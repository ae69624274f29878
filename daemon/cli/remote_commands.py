"""Finds what a job file says that acts beyond this host, whoever runs it: a push, a release, a deployment."""

from __future__ import annotations

import re
from collections.abc import Sequence

HINTS = ("push", "gh ", "glab ", "publish", "upload", "kubectl", "helm", "terraform")
"""Without one of them there is nothing to find; looked for before this module's pattern is made."""


def remote_commands(argv: Sequence[str]) -> list[str]:
    """Return the commands of an argument vector that act elsewhere, in their order; called once per run and dry run.

    Only what stands in the job file is seen, not what its scripts do. Lines that are comments do not count.
    """
    text = " ".join(argv) if len(argv) != len(_SHELL) + 1 or argv[:2] != _SHELL else argv[2]
    if not any(hint in text for hint in HINTS):
        return []
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = (match for line in lines for match in _pattern().finditer(line))
    # Without the options of git, which may hold anything.
    return list(
        dict.fromkeys("git push" if one["git"] else " ".join(one[0].split()) for one in found)
    )


_SHELL = ("/bin/sh", "-c")


def _pattern() -> re.Pattern[str]:
    return re.compile(
        r"(?<![\w/.-])(?:"
        r"(?P<git>git)(?:\s+-[cC]\s+\S+)*\s+push"
        r"|gh\s+(?:pr|release|issue|workflow|run)\s+\w+"
        r"|glab\s+(?:mr|release|issue|ci)\s+\w+"
        r"|(?:docker|podman|buildah|helm)\s+push"
        r"|(?:npm|yarn|pnpm|cargo|poetry|uv)\s+publish"
        r"|twine\s+upload"
        r"|kubectl\s+(?:apply|create|delete|patch|replace|rollout|scale|set)"
        r"|helm\s+(?:install|upgrade|uninstall|rollback)"
        r"|terraform\s+(?:apply|destroy)"
        r")(?![\w-])"
    )
