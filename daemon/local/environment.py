"""What the long-lived processes have of the caller's environment. Imports nothing: it is asked before anything is imported."""

from __future__ import annotations

from collections.abc import Mapping

CHILD_VARIABLES = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "TZ",
        "TMPDIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "LD_LIBRARY_PATH",
        "PYTHONHOME",
        "PYTHONPATH",
        "PYTHONUTF8",
        "PYTHONIOENCODING",
        "PYTHONNOUSERSITE",
        "PYTHONUSERBASE",
        "PYTHONPYCACHEPREFIX",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONFAULTHANDLER",
    }
)
"""What they get: the environment may hold secrets, so the rest stays out."""
CHILD_PREFIXES = ("LC_", "XDG_")


def allowed_environment(env: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment that a long-lived process may have; never a secret."""
    return {
        name: value
        for name, value in env.items()
        if (name in CHILD_VARIABLES or name.startswith(CHILD_PREFIXES)) and name not in secrets
    }


def child_environment(env: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that speaks gRPC, but for its configuration; never a secret.

    gRPC's own lines on standard error are no JSON and tell an operator nothing below ERROR. Its many threads would
    each get an arena of the C library (idle memory of all three 76, with this 73 MB; measured once). What arrives is
    read by the thread that polls, which else is woken by another one: a third fewer wake-ups of threads per job. A gRPC
    that knows these experiments no more says so once when it is loaded, and does without. Memory for pieces of logs
    is kept for the next ones: given back to the kernel each time, it made a flood of log a twentieth slower.
    """
    return allowed_environment(env, secrets) | {
        "GRPC_VERBOSITY": "ERROR",
        "GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener",
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(8 << 20),
    }
