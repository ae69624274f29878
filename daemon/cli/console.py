"""Entry point of the console script: what is typed while the command loads ends it like every other program."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys

ALLOCATIONS = 100_000
"""So many objects before Python looks for garbage. A start makes more by its imports, and hardly any of it is garbage."""


def main() -> None:
    """Load the command, then run it. A Ctrl-C before there is anybody to explain it has no trace of Python."""
    gc.set_threshold(ALLOCATIONS)
    explained = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if explained:  # not ignored, as in the background of a script
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if _is_start(sys.argv[1:]):
        from daemon.local.environment import allowed_environment  # noqa: PLC0415 - for this one only
        from daemon.local.pending_daemon import spawn_ahead  # noqa: PLC0415

        # Read here, because the configuration, which is asked else, takes long to import.
        spawn_ahead(allowed_environment(os.environ, {}))  # noqa: TID251
    from daemon.cli.app import main as run  # noqa: PLC0415 - what takes long

    if explained:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


def _is_start(words: list[str]) -> bool:
    """Tell whether a command line looks like a start that goes on without us; nothing depends on that but speed."""
    if not {"-h", "--help", "--foreground"}.isdisjoint(words):
        return False
    return ("local", "start") in itertools.pairwise(words)
