"""Keeps other processes out of the memory of this one. Imports next to nothing: it is called first thing."""

from __future__ import annotations

import ctypes
import resource

_PR_SET_DUMPABLE = 4


def harden() -> None:
    """Keep other processes of the same user from reading this one's memory and environment.

    PR_SET_DUMPABLE 0 closes ``/proc/PID/{environ,mem,maps}`` and ptrace (prctl(2)); RLIMIT_CORE 0 keeps secrets
    out of core files. Called first thing by every long-lived process. A kernel that refuses is no reason not to run.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
