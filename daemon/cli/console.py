"""Entry point of the console script: what is typed while the command loads ends it like every other program."""

from __future__ import annotations

import gc
import signal

ALLOCATIONS = 100_000
"""So many objects before Python looks for garbage. A start makes more by its imports, and hardly any of it is garbage."""


def main() -> None:
    """Load the command, then run it. A Ctrl-C before there is anybody to explain it has no trace of Python."""
    gc.set_threshold(ALLOCATIONS)
    explained = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if explained:  # not ignored, as in the background of a script
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from daemon.cli.app import main as run  # noqa: PLC0415 - what takes long

    if explained:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()
