"""The environment of a command, by allow-list: what is not listed here or asked for does not exist inside."""

from __future__ import annotations

import os
from collections.abc import Mapping

SANDBOX_MARKER = "RUNNER_SANDBOX"
"""Names the sandbox in every process of a command; the tree kill finds runaways by it."""
OWNER_MARKER = "RUNNER_OWNER"
"""Names the agent-runner in every process of a command; ``reap`` finds leftovers by it."""
JOB_ROOT = "/job"
JOB_USER = "job"
JOB_UID = 1000
"""Uid and gid inside a user namespace."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def base_env(*, name: str, owner: str, job_root: str, home: str, tmp: str) -> dict[str, str]:
    """Return the variables that every command has, on every backend.

    Called once per sandbox.

    Args:
        name: The sandbox, for ``RUNNER_SANDBOX``.
        owner: The agent-runner, for ``RUNNER_OWNER``.
        job_root: The workspace, as the command sees it.
        home: The private home, as the command sees it.
        tmp: The private temporary folder, as the command sees it.
    """
    return {
        "PATH": _PATH,
        "HOME": home,
        "TMPDIR": tmp,
        "LANG": "C.UTF-8",
        "USER": JOB_USER,
        "LOGNAME": JOB_USER,
        "SHELL": "/bin/sh",
        "TERM": "dumb",
        "RUNNER_JOB_ROOT": job_root,
        SANDBOX_MARKER: name,
        OWNER_MARKER: owner,
    }


def command_env(base: Mapping[str, str], requested: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of one command: the base, overridden by what the job asked for.

    The markers cannot be overridden: the tree kill and ``reap`` depend on them.

    Raises:
        ValueError: A name is empty or holds ``=``, a name or value holds a NUL byte, or has no bytes.
    """
    env = {**base, **requested}
    for marker in (SANDBOX_MARKER, OWNER_MARKER):
        if marker in base:
            env[marker] = base[marker]
    names, values = "".join(env), "".join(env.values())
    # For every command: all at once, since hardly any is refused.
    if (
        "=" in names
        or "" in env
        or "\0" in names
        or "\0" in values
        or not has_bytes(names + values)
    ):
        _refuse(env)
    return env


def _refuse(env: Mapping[str, str]) -> None:
    """Say of the first variable that cannot be one, why not."""
    for name, value in env.items():
        if not name or "=" in name or "\0" in name:
            raise ValueError(f"{name!r} cannot be the name of an environment variable")
        if "\0" in value:
            raise ValueError(f"the value of the environment variable {name} holds a NUL byte")
        if not (has_bytes(name) and has_bytes(value)):
            raise ValueError(f"the environment variable {name!r} holds half of a character")


def has_bytes(text: str) -> bool:
    """Tell whether text can be given to the kernel: half of a character, which JSON can hold, has no bytes."""
    if text.isascii():
        return True
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True
